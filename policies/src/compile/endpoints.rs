//! Token endpoints: no resource may lead an agent to one, or it would come by credentials of its own.

use std::sync::Arc;

use foldhash::HashMap;

use crate::endpoint::EndpointUrl;
use crate::oauth::TokenSource;
use crate::provider::Provider;
use crate::report::{Problem, Problems};
use crate::resource::Resource;

/// Reports every resource through which a token endpoint of the zone can be called.
pub(super) fn check(providers: &[Arc<Provider>], resources: &[Arc<Resource>], problems: &Problems) {
    let mut endpoints: HashMap<(&str, u16), Vec<(&Provider, &EndpointUrl)>> = HashMap::default();
    for provider in providers {
        if let Some(TokenSource::Endpoint(url)) = provider.service_token().map(|token| &token.source) {
            endpoints.entry((url.host(), url.port())).or_default().push((provider, url));
        }
    }
    for resource in resources {
        let mut there =
            resource.places().filter_map(|(host, port)| endpoints.get(&(&**host, port))).flatten();
        let reached = there.find(|(_, url)| resource.reaches(url));
        if let Some((provider, url)) = reached {
            problems.push(
                Problem::new(
                    "token_endpoint_reachable",
                    &resource.place,
                    format!("a token endpoint can be called through `{}`", resource.identifier),
                )
                .found(format!("`{url}` of provider `{}`", provider.identifier))
                .expected("an upstream path or operations that leave the token endpoint out")
                .hint("narrow `upstream_url` or the operations: a token from there would be the agent's own"),
            );
        }
    }
}

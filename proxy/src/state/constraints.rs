//! The strict reading of delegation constraints.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::CoordinatorError;
use super::json::parse_iso;
use super::model::Constraints;

const MAX_RESOURCES: usize = 64;
const MAX_REASON: usize = 256;
const DAY_S: u64 = 86_400;

impl Constraints {
    /// Reads the two members a request may carry them in; `constraints` wins over `constraints_json`.
    ///
    /// # Errors
    /// 400 `invalid_delegation_constraint` for an unknown key or something that is no object,
    /// 400 `invalid_<key>` for a bad value, 400 `invalid_max_hops` when depth and hops contradict each other.
    pub fn parse(
        constraints: Option<&Value>,
        constraints_json: Option<&Value>,
    ) -> Result<Self, CoordinatorError> {
        let mut merged = Map::new();
        for part in [constraints_json, constraints].into_iter().flatten() {
            let Value::Object(part) = part else { return Err(unknown()) };
            merged.extend(part.clone());
        }
        let mut read = Self::default();
        let mut max_depth = None;
        for (key, value) in &merged {
            match key.as_str() {
                "resources" => read.resources = resources(value).ok_or_else(|| bad("invalid_resources"))?,
                "max_depth" => max_depth = Some(number(value, 10, "invalid_max_depth")?),
                "max_hops" => read.max_hops = Some(number(value, 10, "invalid_max_hops")?),
                "budget" => read.budget = Some(number(value, 64, "invalid_budget")?),
                "ttl_seconds" => read.ttl_seconds = Some(number(value, DAY_S, "invalid_ttl_seconds")?),
                "policy_approved" => {
                    let approved = value.as_bool().ok_or_else(|| bad("invalid_policy_approved"))?;
                    read.policy_approved = Some(approved);
                }
                "expires_at" => {
                    let at = value.as_str().and_then(parse_iso).ok_or_else(|| bad("invalid_expires_at"))?;
                    read.expires_at = Some(at);
                }
                "broad_reason" => {
                    read.broad_reason = Some(reason(value).ok_or_else(|| bad("invalid_broad_reason"))?);
                }
                _ => return Err(unknown()),
            }
        }
        match (max_depth, read.max_hops) {
            (Some(depth), Some(hops)) if depth != hops => Err(bad("invalid_max_hops")),
            (Some(depth), _) => Ok(Self { max_hops: Some(depth), ..read }),
            (None, _) => Ok(read),
        }
    }
}

const fn bad(code: &'static str) -> CoordinatorError {
    CoordinatorError::new(400, code)
}

const fn unknown() -> CoordinatorError {
    bad("invalid_delegation_constraint")
}

fn number(value: &Value, most: u64, code: &'static str) -> Result<u32, CoordinatorError> {
    let number = value.as_u64().filter(|number| (1..=most).contains(number));
    number.and_then(|number| u32::try_from(number).ok()).ok_or_else(|| bad(code))
}

fn resources(value: &Value) -> Option<Vec<Arc<str>>> {
    let names = value.as_array().filter(|names| names.len() <= MAX_RESOURCES)?;
    names.iter().map(|name| name.as_str().filter(|name| !name.is_empty()).map(Arc::from)).collect()
}

fn reason(value: &Value) -> Option<String> {
    value.as_str().filter(|text| (1..=MAX_REASON).contains(&text.chars().count())).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_bad_member_has_its_code() {
        let cases = [
            (json!([]), "invalid_delegation_constraint"),
            (json!({"surprise": 1}), "invalid_delegation_constraint"),
            (json!({"resources": "r"}), "invalid_resources"),
            (json!({"resources": [""]}), "invalid_resources"),
            (json!({"resources": vec!["r"; 65]}), "invalid_resources"),
            (json!({"max_depth": 11}), "invalid_max_depth"),
            (json!({"max_hops": 0}), "invalid_max_hops"),
            (json!({"max_hops": 2, "max_depth": 3}), "invalid_max_hops"),
            (json!({"budget": 65}), "invalid_budget"),
            (json!({"ttl_seconds": 86_401}), "invalid_ttl_seconds"),
            (json!({"ttl_seconds": 1.5}), "invalid_ttl_seconds"),
            (json!({"policy_approved": "yes"}), "invalid_policy_approved"),
            (json!({"expires_at": "soon"}), "invalid_expires_at"),
            (json!({"broad_reason": ""}), "invalid_broad_reason"),
        ];
        for (constraints, code) in cases {
            let refused = Constraints::parse(Some(&constraints), None).unwrap_err();
            assert_eq!((refused.status, refused.code), (400, code), "{constraints}");
        }
    }

    #[test]
    fn depth_is_hops_and_the_first_member_wins() {
        let (first, second) = (json!({"max_depth": 3}), json!({"max_depth": 2, "budget": 4}));
        let read = Constraints::parse(Some(&first), Some(&second)).unwrap();
        assert_eq!((read.max_hops, read.budget), (Some(3), Some(4)));
        assert_eq!(Constraints::parse(None, None).unwrap(), Constraints::default());
    }
}

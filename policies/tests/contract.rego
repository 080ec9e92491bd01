# The decision contract, written a third time and in another language, so that the engine and its model have somebody
# to disagree with. Tests evaluate it over `data.caracal.authz`, the six roots, and the input of a mint or a use.
# Nothing in the edge evaluates it.
package caracal.oracle

import rego.v1

roots := data.caracal.authz

app_ids := object.get(roots, "app_ids", {})

confinement := object.get(roots, "confinement", [])

restrict := object.get(roots, "restrict", [])

risk := object.get(roots, "risk", [])

tiers := object.get(roots, "approval_tiers", [])

# What is asked.

asked := {scope | some scope in input.context.requested_scopes}

labels := {label | some label in input.principal.labels}

lifecycle := "agent:lifecycle"

with_session if input.context.agent_session_id != ""

with_edge if input.delegation_edge

with_claims if input.context.subject_claims

shown := {word | some word in split(input.context.subject_claims.scope, " "); word != ""}

# What the roots say about it.

frozen if count(restrict) > 0

grant := roots.grants[input.resource.identifier]

owns if app_ids[grant.application] == input.principal.id

held := {scope | some scope in input.delegation_edge.scopes}

narrowed if count(asked - held) == 0

outside contains rule if {
	some rule in confinement
	some label in labels
	startswith(label, rule.label_prefix)
	count(asked - {scope | some scope in rule.scopes}) > 0
}

confined if count(outside) == 0

covered(scopes) if {
	some label in labels
	count(scopes - {scope | some scope in grant.roles[label]}) == 0
}

named(value) if {
	is_string(value)
	value != ""
}

bad_risk if not is_array(risk)

bad_risk if {
	is_array(risk)
	some rule in risk
	not good_risk(rule)
}

good_risk(rule) if {
	named(rule.scope)
	named(rule.tier)
}

bad_tiers if not is_array(tiers)

bad_tiers if {
	is_array(tiers)
	some declared in tiers
	not good_tier(declared)
}

good_tier(declared) if {
	named(declared.tier)
	object.get(declared, "approver", "operator") in {"operator", "subject", "any"}
	object.get(declared, "privacy", "identified") in {"identified", "pseudonymous", "anonymous"}
	seconds := object.get(declared, "ttl_seconds", 1800)
	is_number(seconds)
	seconds > 0
	floor(seconds) == seconds
}

# Shapes of a question.

bootstrap if {
	asked == {lifecycle}
	not with_claims
	not with_edge
	not with_session
}

mint if {
	input.delegation_edge.id != ""
	with_session
	not with_claims
	count(asked) > 0
	not lifecycle in asked
}

workload if {
	input.principal.type == "Workload"
	input.action.id == "CredentialInjection"
	not with_claims
	not with_edge
	not with_session
}

presented if {
	input.context.subject_claims.delegation_edge_id != ""
	count(asked) == 0
	count(shown) > 0
}

aimed if input.resource.identifier in input.context.subject_claims.target

# Two tiers for one scope make two outputs, which is an error and no answer.
tier(scope) := rule.tier if {
	some rule in risk
	rule.scope == scope
}

classified := {scope: level |
	some scope in asked
	level := tier(scope)
}

gate := {declared |
	some declared in tiers
	some level in classified
	declared.tier == level
}

sound if {
	not frozen
	not bad_risk
	not bad_tiers
}

# Answers.

decision := plain("caracal-bootstrap") if {
	bootstrap
	owns
	not frozen
} else := classed(sprintf("caracal-%s-mint", [grant.application])) if {
	mint
	owns
	narrowed
	confined
	covered(asked)
	sound
} else := classed("caracal-workload-mint") if {
	workload
	sound
} else := plain(sprintf("caracal-%s-use", [grant.application])) if {
	presented
	aimed
	owns
	covered(shown)
	not frozen
} else := {"deny": reason}

plain(rule) := {"allow": rule, "gate": set(), "risk": {}}

classed(rule) := {"allow": rule, "gate": gate, "risk": classified}

reason := "restriction_active" if {
	frozen
} else := "malformed_risk_data" if {
	minting
	bad_risk
} else := "malformed_approval_data" if {
	minting
	bad_tiers
} else := "resource_not_granted" if {
	mint
	not owns
} else := "delegation_scope_exceeded" if {
	mint
	not narrowed
} else := "confinement_violation" if {
	mint
	not confined
} else := "role_scope_mismatch" if {
	mint
	not covered(asked)
} else := "mandate_target_mismatch" if {
	presented
	not aimed
} else := "resource_not_granted" if {
	presented
	not owns
} else := "role_scope_mismatch" if {
	presented
	not covered(shown)
} else := "no_rule_matched"

minting if {
	mint
	not bootstrap
}

minting if {
	workload
	not bootstrap
}

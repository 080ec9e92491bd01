package caracal.authz

# caracal:data-document

app_ids := {
	"acme": "agent-acme",
	"globex": "agent-globex",
	"helper": "helper",
}

# A role is the label of a session. The SDKs label the sessions of an application with its id.
grants := {
	"resource://crm/acme": {
		"application": "acme",
		"roles": {
			"agent-acme": ["crm:read"],
			"clerk": ["crm:read", "crm:write"],
		},
	},
	"resource://crm/globex": {
		"application": "globex",
		"roles": {"agent-globex": ["crm:read"]},
	},
	# The helper works for one customer at a time when its session says for whom, and for any when it says `archivist`.
	"resource://files": {
		"application": "helper",
		"roles": {
			"customer:acme": ["files:acme"],
			"customer:globex": ["files:globex"],
			"archivist": ["files:acme", "files:globex"],
		},
	},
}

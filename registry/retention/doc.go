// Package retention takes old tags and manifests out of repositories by rules, as a plan that is printed before
// anything happens.
//
// # Words
//
// A rule names repositories and tags by pattern and says what is kept. The first rule that fits a tag's repository and
// name decides about the tag; a tag that no rule fits is kept. What a rule keeps is the union of its criteria: the tags
// of the last N images by push time, tags by pattern, tags younger than an age, or all. A manifest without a tag goes
// when the first rule for its repository that says "untagged" says an age, and it is older.
//
// Nothing goes that something needs that stays: an index keeps its images, an image keeps what is about it (its
// signature, its SBOM: referrers by subject, and tags of the form sha256-HEX.sig), and what is about an image keeps
// that image while it is kept itself. Bytes are freed by the next garbage collection, not here.
//
// # Plan and apply
//
// Make is a pure function: policy, repositories as they were observed, now → Plan. A plan has an ID, made from what it
// would do, and prints exactly what would go and why. Apply does what a plan says and nothing else. It looks again at every
// repository first (Still, pure as well): a tag that was moved, a manifest that was pushed again, tagged, signed or named by
// an index meanwhile stays, and the result says so.
//
//	Engine.Plan → Plan, kept as ROOT/plans/ID.json for a day → Engine.Apply(ID) → Result, kept among the last runs
//
// A scheduled run (Policy.Every) is the same: plan, then apply.
//
// # On disk
//
//	ROOT/policy.json     Policy
//	ROOT/plans/ID.json   Plan
//	ROOT/runs.json       the last results, newest first
//
// # Routes
//
// For administrators; bodies and answers are JSON, errors {"message": TEXT}:
//
//	GET  /berth/registry/v1/retention                policy
//	PUT  /berth/registry/v1/retention                policy → 204; replaces
//	POST /berth/registry/v1/retention/plan?repository=PATTERN   → Plan; with "Accept: text/plain" as text (&all=1: also what stays)
//	                                                 a body is a policy to plan by in place of the one that is set
//	POST /berth/registry/v1/retention/apply          {"plan": ID} → Result
//	GET  /berth/registry/v1/retention/runs           [Result], newest first
//
// A policy:
//
//	{"every": "24h", "rules": [
//	  {"name": "pull requests", "repositories": ["team/*"], "tags": ["pr-*"], "keep": {"younger": "168h"}},
//	  {"repositories": ["**"], "keep": {"last": 10, "tags": ["v*", "latest"], "younger": "720h"}, "untagged": "24h"}]}
//
// The package never removes bytes, never touches what no rule names, and decides nothing while it applies.
package retention

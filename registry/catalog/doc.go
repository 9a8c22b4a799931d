// Package catalog owns what is known of the registry's repositories beyond their content: descriptions,
// stars, the official and certified marks, counts of pulls and pushes, the labels of the newest image, and
// the index that search asks.
//
// # Words
//
// A repository has two names: its path (library/tomcat) and the one that people see (tomcat): what lies
// under library/ is shown bare, as it is pulled from a mirror of Docker Hub. A fact is what a person said
// of a repository (description, star, mark); it exists nowhere else. What is derived was read from the
// storage (tags, labels, platforms, size) and can be read again at any time. An entry is both together.
//
// # On disk
//
//	ROOT/people.db   facts and counts; bbolt; every change by a person is on disk before it is answered
//	ROOT/index.db    derived; bbolt; made anew from the storage when it is missing or damaged
//
// The index of words lives in memory (a registry of 10,000 repositories needs about 40 MB) and is made at
// Open from the two files. Nothing here is needed to serve an image: a registry that lost both files serves
// everything, and has lost its stars.
//
// # Life of an entry
//
// A push announces itself by a notice.Event (Notice); the repository is queued, read again from the storage
// by the catalog's one worker, written to index.db and indexed: searchable within a moment. Pulls are
// counted in memory and written every few seconds: kill -9 loses that many seconds of counting, and nothing
// else. A pull of something unseen is read like a push: what a mirror fetches is pushed by nobody. A delete is the same as a push: the repository is read again, and an entry without content leaves
// the index; its facts stay in case it is pushed again, until Forget.
//
// # Certified
//
// A repository is certified when the image it shows (its newest) is signed under a named policy. The
// catalog cannot judge that: Config.Certify is asked when a repository is read, and the policy's name is
// kept with what is derived.
//
// # Routes
//
// Search is served by SearchHandler, in the words of Docker's first registry protocol, which the search of
// dockerd and of podman still speaks:
//
//	GET /v1/_ping                          always 200
//	GET /v1/search?q=WORDS&n=25&page=1     {"num_results", "num_pages", "page", "page_size", "query", "results": [{
//	                                       "name", "description", "star_count", "is_official", "is_automated",
//	                                       "is_trusted", "pull_count", "certified": POLICY}]}
//
// Everything else is served by AdminHandler; bodies and answers are JSON, errors {"message": TEXT}. NAME is a
// repository's path and may hold slashes; every route but the last two wants the right named beside it.
//
//	GET    /berth/registry/v1/catalog?q=&n=&page=     {"total", "entries": [Entry]}               (what the asker may pull)
//	GET    /berth/registry/v1/catalog/entry/NAME      Entry                                       pull
//	PUT    /berth/registry/v1/catalog/description/NAME  {"short", "long"} → 204                   admin
//	PUT    /berth/registry/v1/catalog/star/NAME       → 204                                       pull, and a name
//	DELETE /berth/registry/v1/catalog/star/NAME       → 204                                       pull, and a name
//	PUT    /berth/registry/v1/catalog/mark/NAME       {"official": true|false|null} → 204         administrator
//	DELETE /berth/registry/v1/catalog/entry/NAME      forgets description, stars, counts → 204    administrator
//	POST   /berth/registry/v1/catalog/rebuild         {"repositories": N}                         administrator
//
// The package never decides who may do what (access.Decider does), never changes content, and never asks
// anything outside the registry.
package catalog

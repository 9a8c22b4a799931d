// Package gc removes what nothing names any more from the registry's storage, while the registry serves.
//
// A collection opens a window in the storage (storage.Collection) and then
//
//	marks:   manifests that have a tag, all that those name, referrers of what is marked — or, without Policy.Untagged, every manifest;
//	         then all blobs that marked manifests name, per repository
//	plans:   manifests, links of blobs, blobs, uploads and empty repositories that are not marked and not young; Plan prints itself
//	applies: one after the other, each only if the storage agrees that it is neither leased nor young at that moment
//
// A push needs no lock against this: whatever it names is leased when it looks whether it is there, so it either finds it and keeps
// it, or finds that it is gone and says so to the client, which uploads again. There is no time in which the registry only reads.
//
// A collection that is killed leaves nothing half done: names go before what they stand for, and the next one finds the rest.
//
// The package never removes a tag: registry/retention does. It keeps no state.
package gc

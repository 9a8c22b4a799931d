// Package door holds what the registry's own JSON routes (/berth/registry/v1/…) share: who is asking, whether
// he may, how a body is read and how an answer and an error read. A Door is made once, by the registry, and given to each
// part that has routes. It never decides a right itself: access.Decider does, and Administrator for what
// concerns the whole site.
package door

// Package overlay mounts overlayfs for programs that want to look into a stack of layers or write to it, without
// putting the mount anywhere: Mount gives a descriptor of a detached mount, which is gone when it is closed or its
// process dies. Containers' own roots are assembled by the launcher.
//
// The options that would make the upper directory refer to lower ones (redirect_dir, metacopy, index) are always
// off: the upper directory must be a correct difference.
//
// A Mapping shows the layers through an id mapping, the upper one too; see mapped.go.
package overlay

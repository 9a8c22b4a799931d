package driver

import (
	"context"
	"time"
)

// Driver serves volumes. It is safe for concurrent use.
type Driver interface {
	// Scope is "local" when the driver's volumes are of this host, else "global".
	Scope(ctx context.Context) string
	// Check refuses options that no volume could have, before anything is made. fault.Invalid.
	Check(options map[string]string) error
	// Create makes a volume. One of that name that is there already is no error.
	Create(ctx context.Context, name string, options map[string]string) error
	// Remove takes a volume away for good. One that is not there is no error.
	Remove(ctx context.Context, name string) error
	// Get looks a volume up. fault.NotFound: the driver has none; any other error: nobody knows.
	Get(ctx context.Context, name string) (Found, error)
	// List tells all volumes of the driver, those included that this engine did not make.
	List(ctx context.Context) ([]Found, error)
	// Mount makes the content reachable for the user and gives its absolute host path.
	Mount(ctx context.Context, name, user string) (path string, err error)
	// Unmount ends the user's use.
	Unmount(ctx context.Context, name, user string) error
}

// Found is a volume as its driver tells it.
type Found struct {
	Name       string
	Mountpoint string         // "" while it is not mounted
	Created    time.Time      // zero: the driver does not say
	Status     map[string]any // the driver's own words for `volume inspect`
}

// Copier is a driver that makes copies by itself.
type Copier interface {
	// Clone makes a volume with the content of another. fault.NotImplemented: it cannot, and made nothing.
	Clone(ctx context.Context, from, name string, options map[string]string) error
	// Snapshot keeps the content of a volume as it is now, under a name of its own. A snapshot is cloned, not mounted.
	// fault.NotImplemented: it cannot.
	Snapshot(ctx context.Context, name, snapshot string) error
}

// Renamer is a driver whose volumes can have another name.
type Renamer interface {
	Rename(ctx context.Context, name, to string) error
}

// Resizer is a driver whose volumes can be made larger, mounted or not.
type Resizer interface {
	// Resize makes the volume hold so many bytes. fault.NotImplemented: it cannot.
	Resize(ctx context.Context, name string, bytes int64) error
}

// Forgetter is a driver that removes by itself, later, what cannot be removed now.
type Forgetter interface {
	// Forget has the driver not show the volume any more and remove it when that can be done.
	Forget(ctx context.Context, name string) error
}

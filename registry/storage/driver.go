package storage

import (
	"context"
	"io"
	"iter"
	"time"
)

// Driver is a flat map from keys to bytes, and a place where the bytes of uploads gather. A key is a path of elements
// joined by "/": none is empty, "." or "..", no key is the beginning of another at a "/". Every implementation
// passes drivertest.Run.
//
// Methods may be called concurrently. What Write, Remove and Finish have done when they return nil survives the machine's death;
// what else is done to an upload survives the process's. Errors have kinds of fault; a key or upload that is not there is NotFound.
type Driver interface {
	// Read gives the whole value of a small key; more than 8 MiB is an error.
	Read(ctx context.Context, key string) ([]byte, error)
	// Write sets a small key. A reader sees the old value or the new one.
	Write(ctx context.Context, key string, value []byte) error
	// Open gives a value to read from any offset. The value stays readable while it is open, even when the key is removed.
	Open(ctx context.Context, key string) (*Content, error)
	// Stat says what Open would find.
	Stat(ctx context.Context, key string) (Entry, error)
	// Remove takes a key away; one that is not there is no error.
	Remove(ctx context.Context, key string) error
	// List gives every key below prefix, which ends in "/", once, in no promised order. Keys that come and go meanwhile may
	// or may not be seen. It ends at the first error.
	List(ctx context.Context, prefix string) iter.Seq2[Entry, error]

	// StartUpload makes an empty upload. The id is of the store's choosing and safe as an element of a key.
	StartUpload(ctx context.Context, id string) (Staged, error)
	// ResumeUpload gives an upload as it was left, also by another process.
	ResumeUpload(ctx context.Context, id string) (Staged, error)
	// Uploads gives all uploads that exist; Entry.Key is the id.
	Uploads(ctx context.Context) iter.Seq2[Entry, error]

	// Close lets go of what the driver holds. Nothing else is in flight.
	Close() error
}

// Redirector is a Driver whose values clients can read by themselves.
type Redirector interface {
	// Redirect gives a URL that reads a value, with ranges, for a while and for whoever has it; "" when clients are not to be sent there.
	Redirect(ctx context.Context, key string) (string, error)
}

// Staged is the bytes of an upload that have arrived. One goroutine at a time uses it.
type Staged interface {
	// Size gives how many bytes have arrived.
	Size() int64
	// State gives what Save was given last, and how many bytes had arrived then; nil when there was no Save. After a crash
	// there may be more bytes than that, never fewer. The size is -1 when the bytes may be others than those that arrived: the machine
	// has died since, and they were not synced.
	State() (state []byte, size int64)
	// Append adds the bytes of r and gives how many it has taken, also with an error. When r fails all that it gave before are
	// taken and the error is r's; when bytes that r gave are lost, ShortError is in the error's chain.
	Append(ctx context.Context, r io.Reader) (int64, error)
	// Save keeps a note for whoever resumes the upload.
	Save(ctx context.Context, state []byte) error
	// Bytes reads all that has arrived. Afterwards nothing can be appended.
	Bytes(ctx context.Context) (io.ReadCloser, error)
	// Finish makes the bytes the value of key, durably, and ends the upload. A value that is there already is replaced by the same.
	Finish(ctx context.Context, key string) error
	// Cancel drops the bytes and ends the upload.
	Cancel(ctx context.Context) error
}

// ShortError is in the chain of an error of Staged.Append that has lost bytes which it had read.
type ShortError struct {
	Err error
}

// Error is the cause's.
func (e *ShortError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *ShortError) Unwrap() error { return e.Err }

// Entry is one key.
type Entry struct {
	Key      string
	Size     int64     // bytes of the value
	Modified time.Time // not before it was written; an object store that tells whole seconds adds one
}

// Content is an open value. The caller closes Body. Body is an *os.File where the value lies in a file, so that the
// kernel can copy it to a socket by itself.
type Content struct {
	Body     io.ReadSeekCloser
	Size     int64
	Modified time.Time
}

// SmallValue is the most that Driver.Read gives: a manifest of the greatest size and some air.
const SmallValue = 8 << 20

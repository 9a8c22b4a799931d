package compress

import (
	"io"

	"github.com/klauspost/compress/zstd"

	"berth/base/fault"
)

// NewWriter compresses what is written to it, to w. The result depends on the bytes alone, not on how they are cut into writes,
// on time or on the machine: a blob that was dropped can be made again and gets the same digest from the same
// version of this package. Close it; w stays the caller's. Kinds that are only read are Invalid.
func NewWriter(w io.Writer, kind Kind) (io.WriteCloser, error) {
	switch kind {
	case None:
		return plain{w}, nil
	case Gzip:
		return newGzipWriter(w), nil
	case Zstd:
		// One goroutine: blocks are cut by the data alone.
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	}
	return nil, fault.New(fault.Invalid, "%s cannot be written", kind)
}

// gzipLevel is twice as fast as the default level, which Docker takes, and gives programs and libraries 8 % more bytes: a push
// waits for a processor before it waits for any network that is faster than 50 MB/s.
const gzipLevel = 2

type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// Package compress recognises and undoes the compressions that images and archives come in, and has the pipeline
// that layers are read through.
//
// NewReader looks at the first bytes (gzip, zstd, xz, bzip2; anything else is passed on as it is) and never
// trusts a media type. A Stream decompresses in one goroutine, hashes in a second and hands buffers to its
// consumer, which unpacks in the third: with two cores a layer costs about the dearest of the three.
// The package never knows what the bytes mean.
package compress

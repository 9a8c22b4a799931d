package s3

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"berth/base/fault"
	"berth/registry/storage"
)

const (
	uploadsPrefix = "uploads/"
	dataPrefix    = "uploads-data/"
	tailSuffix    = ".tail-"

	manyParts  = 500       // from here on parts are larger: a store takes 10,000 of one upload
	largeParts = 4         // times
	firstTail  = 256 << 10 // what an upload's buffer begins with
	copyLimit  = 5 << 30   // more than this is copied in parts
	copyPart   = 1 << 30
)

// state is what the store keeps of an upload beside its bytes.
type state struct {
	Multipart string `json:"multipart,omitempty"` // the store's id; "": no part yet
	Parts     []part `json:"parts,omitempty"`
	Tail      int64  `json:"tail"`   // bytes of the tail object that count
	TailAt    int    `json:"tailAt"` // how many parts there were before it: part of its name
	Note      []byte `json:"note,omitempty"`
}

type part struct {
	ETag string `json:"etag"`
	Size int64  `json:"size"`
}

// staged is an upload. Its tail is in memory while the process lives.
type staged struct {
	driver *Driver
	id     string
	state  state
	tail   []byte
	noted  int64 // size at the last Save
	sealed bool  // completed: data has it all
}

func (s *staged) stateKey() string { return uploadsPrefix + s.id }
func (s *staged) dataKey() string  { return dataPrefix + s.id }

// tailKey names the tail that follows so many parts. While their number stays, a tail only grows, so that a state which knows less of
// it than there is stays right; when it changes the tail is another object.
func (s *staged) tailKey(parts int) string {
	return dataPrefix + s.id + tailSuffix + strconv.Itoa(parts)
}

// StartUpload makes an empty upload.
func (d *Driver) StartUpload(ctx context.Context, id string) (storage.Staged, error) {
	s := &staged{driver: d, id: id}
	return s, s.put(ctx)
}

// ResumeUpload gives an upload as it was saved last.
func (d *Driver) ResumeUpload(ctx context.Context, id string) (storage.Staged, error) {
	s := &staged{driver: d, id: id}
	data, err := d.Read(ctx, s.stateKey())
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &s.state); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "%s is damaged", s.stateKey())
	}
	if s.state.Tail > 0 {
		s.tail, err = d.readTail(ctx, s.tailKey(s.state.TailAt), s.state.Tail)
		if fault.Is(err, fault.NotFound) {
			// The upload has ended, and whoever ended it died before the state was gone, which goes last.
			return nil, errors.Join(fault.New(fault.NotFound, "upload %s has ended", id), s.Cancel(ctx))
		}
		if err != nil {
			return nil, err
		}
	}
	s.noted = s.Size()
	return s, nil
}

func (d *Driver) readTail(ctx context.Context, key string, size int64) ([]byte, error) {
	c, err := d.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	defer c.Body.Close()
	tail := make([]byte, size)
	if _, err := io.ReadFull(c.Body, tail); err != nil {
		return nil, storeError(key, err)
	}
	return tail, nil
}

// Uploads gives all uploads that exist. Its sizes are unknown, zero.
func (d *Driver) Uploads(ctx context.Context) iter.Seq2[storage.Entry, error] {
	return func(yield func(storage.Entry, error) bool) {
		for e, err := range d.List(ctx, uploadsPrefix) {
			e.Key, e.Size = strings.TrimPrefix(e.Key, uploadsPrefix), 0
			if !yield(e, err) {
				return
			}
		}
	}
}

// sweep removes data that no upload's state knows of.
func (d *Driver) sweep(ctx context.Context) error {
	known := map[string]bool{}
	for e, err := range d.Uploads(ctx) {
		if err != nil {
			return err
		}
		known[e.Key] = true
	}
	for e, err := range d.List(ctx, dataPrefix) {
		if err != nil {
			return err
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(e.Key, dataPrefix), tailSuffix)
		if known[id] {
			continue
		}
		if err := d.Remove(ctx, e.Key); err != nil {
			return err
		}
	}
	pages := s3.NewListMultipartUploadsPaginator(d.client, &s3.ListMultipartUploadsInput{Bucket: d.bucket, Prefix: aws.String(d.prefix)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return storeError("multipart uploads", err)
		}
		for _, m := range page.Uploads {
			id, ours := strings.CutPrefix(aws.ToString(m.Key), d.prefix+dataPrefix)
			if ours && known[id] {
				continue
			}
			if !ours && !strings.HasPrefix(aws.ToString(m.Key), d.prefix+"blobs/") {
				continue // somebody else's, in the same bucket
			}
			_, err := d.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: d.bucket, Key: m.Key, UploadId: m.UploadId})
			if err := storeError("multipart upload", err); err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
		}
	}
	return nil
}

// Size gives how many bytes have arrived.
func (s *staged) Size() int64 {
	n := int64(len(s.tail))
	for _, p := range s.state.Parts {
		n += p.Size
	}
	return n
}

// State gives the note of the last Save.
func (s *staged) State() ([]byte, int64) { return s.state.Note, s.noted }

// Append gathers bytes and sends every part that is full.
func (s *staged) Append(ctx context.Context, r io.Reader) (int64, error) {
	if s.sealed {
		return 0, fault.New(fault.Conflict, "upload %s is complete", s.id)
	}
	total := int64(0)
	for {
		size := s.driver.partSize
		if len(s.state.Parts) >= manyParts {
			size *= largeParts
		}
		for len(s.tail) < size {
			if len(s.tail) == cap(s.tail) {
				s.tail = slices.Grow(s.tail, max(min(len(s.tail), size-len(s.tail)), firstTail))
			}
			n, err := r.Read(s.tail[len(s.tail):min(cap(s.tail), size)])
			s.tail = s.tail[:len(s.tail)+n]
			total += int64(n)
			if err == io.EOF {
				return total, nil
			}
			if err != nil {
				return total, err
			}
		}
		if err := s.send(ctx); err != nil {
			return total, err // the bytes are still in the tail
		}
	}
}

// send makes the tail a part.
func (s *staged) send(ctx context.Context) error {
	k, err := s.driver.key(s.dataKey())
	if err != nil {
		return err
	}
	if s.state.Multipart == "" {
		out, err := s.driver.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: s.driver.bucket, Key: k})
		if err != nil {
			return storeError(s.id, err)
		}
		s.state.Multipart = aws.ToString(out.UploadId)
		if err := s.put(ctx); err != nil {
			return err
		}
	}
	out, err := s.driver.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: s.driver.bucket, Key: k, UploadId: aws.String(s.state.Multipart),
		PartNumber: aws.Int32(int32(len(s.state.Parts) + 1)), Body: bytes.NewReader(s.tail),
	})
	if err != nil {
		return storeError(s.id, err)
	}
	s.state.Parts = append(s.state.Parts, part{ETag: aws.ToString(out.ETag), Size: int64(len(s.tail))})
	s.tail = s.tail[:0]
	return nil
}

// Save puts the tail and then the state that names it.
func (s *staged) Save(ctx context.Context, note []byte) error {
	before := s.state
	s.state.Tail, s.state.TailAt, s.state.Note, s.noted = int64(len(s.tail)), len(s.state.Parts), note, s.Size()
	if len(s.tail) > 0 && (before.Tail != s.state.Tail || before.TailAt != s.state.TailAt) {
		if err := s.driver.Write(ctx, s.tailKey(s.state.TailAt), s.tail); err != nil {
			return err
		}
	}
	if err := s.put(ctx); err != nil {
		return err
	}
	if before.Tail > 0 && before.TailAt != s.state.TailAt {
		return s.driver.Remove(ctx, s.tailKey(before.TailAt))
	}
	return nil
}

// put writes the state.
func (s *staged) put(ctx context.Context) error {
	data, err := json.Marshal(s.state)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "%s", s.stateKey())
	}
	return s.driver.Write(ctx, s.stateKey(), data)
}

// Bytes reads all that has arrived.
func (s *staged) Bytes(ctx context.Context) (io.ReadCloser, error) {
	if s.state.Multipart == "" {
		return io.NopCloser(bytes.NewReader(s.tail)), nil
	}
	if err := s.seal(ctx); err != nil {
		return nil, err
	}
	c, err := s.driver.Open(ctx, s.dataKey())
	if err != nil {
		return nil, err
	}
	return c.Body, nil
}

// seal completes the multipart upload. One that an earlier process has completed is recognised by its size.
func (s *staged) seal(ctx context.Context) error {
	if s.sealed {
		return nil
	}
	size := s.Size()
	if e, err := s.driver.Stat(ctx, s.dataKey()); err == nil && e.Size == size {
		s.sealed = true
		return nil
	}
	if len(s.tail) > 0 {
		if err := s.send(ctx); err != nil {
			return err
		}
	}
	k, err := s.driver.key(s.dataKey())
	if err != nil {
		return err
	}
	parts := make([]types.CompletedPart, len(s.state.Parts))
	for i, p := range s.state.Parts {
		parts[i] = types.CompletedPart{ETag: aws.String(p.ETag), PartNumber: aws.Int32(int32(i + 1))}
	}
	_, err = s.driver.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: s.driver.bucket, Key: k, UploadId: aws.String(s.state.Multipart), MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	if err != nil {
		return storeError(s.id, err)
	}
	s.sealed = true
	return nil
}

// Finish gives the bytes their name.
func (s *staged) Finish(ctx context.Context, key string) error {
	k, err := s.driver.key(key)
	if err != nil {
		return err
	}
	if s.state.Multipart == "" {
		if _, err := s.driver.client.PutObject(ctx, &s3.PutObjectInput{Bucket: s.driver.bucket, Key: k, Body: bytes.NewReader(s.tail)}); err != nil {
			return storeError(key, err)
		}
		return s.drop(ctx)
	}
	if err := s.seal(ctx); err != nil {
		return err
	}
	if err := s.copy(ctx, k, s.Size()); err != nil {
		return storeError(key, err)
	}
	return s.drop(ctx)
}

// copy copies the data to a key within the store.
func (s *staged) copy(ctx context.Context, to *string, size int64) error {
	c, bucket := s.driver.client, s.driver.bucket
	from := aws.String(url.PathEscape(*bucket) + "/" + (&url.URL{Path: s.driver.prefix + s.dataKey()}).EscapedPath())
	if size <= copyLimit {
		_, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: to, CopySource: from})
		return err
	}
	m, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: to})
	if err != nil {
		return err
	}
	var parts []types.CompletedPart
	for at, n := int64(0), int32(1); at < size; at, n = at+copyPart, n+1 {
		span := fmt.Sprintf("bytes=%d-%d", at, min(at+copyPart, size)-1)
		out, err := c.UploadPartCopy(ctx, &s3.UploadPartCopyInput{Bucket: bucket, Key: to, UploadId: m.UploadId, PartNumber: aws.Int32(n), CopySource: from, CopySourceRange: aws.String(span)})
		if err != nil {
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			c.AbortMultipartUpload(late, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: to, UploadId: m.UploadId})
			return err
		}
		parts = append(parts, types.CompletedPart{ETag: out.CopyPartResult.ETag, PartNumber: aws.Int32(n)})
	}
	_, err = c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: to, UploadId: m.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}})
	return err
}

// Cancel drops the bytes.
func (s *staged) Cancel(ctx context.Context) error {
	if s.state.Multipart != "" && !s.sealed {
		k, err := s.driver.key(s.dataKey())
		if err != nil {
			return err
		}
		_, err = s.driver.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: s.driver.bucket, Key: k, UploadId: aws.String(s.state.Multipart)})
		if err := storeError(s.id, err); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	return s.drop(ctx)
}

// drop removes what is left of an upload, the state last: as long as it is there somebody will come for the rest.
func (s *staged) drop(ctx context.Context) error {
	s.tail = nil
	keys := []string{s.stateKey()}
	if s.state.Tail > 0 {
		keys = append([]string{s.tailKey(s.state.TailAt)}, keys...)
	}
	if s.state.Multipart != "" {
		keys = append([]string{s.dataKey()}, keys...)
	}
	for _, k := range keys {
		if err := s.driver.Remove(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

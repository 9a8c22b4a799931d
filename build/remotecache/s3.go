package remotecache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/image"
)

// s3Place is a bucket, laid out as BuildKit's S3 cache:
//
//	PREFIX manifests/NAME   a table, once for each name
//	PREFIX blobs/DIGEST     a blob
type s3Place struct {
	client    *s3.Client
	bucket    string
	prefix    string
	manifests string
	blobs     string
	names     []string
	most      int64 // what the bucket takes in one request, in bytes: putMax but in tests
	part      int64 // the parts of what is larger: partSize but in tests
}

// What S3 takes: one request has 5 GiB at most, an object of parts 10,000 of them and 5 TiB.
const (
	putMax   = 5 << 30
	partSize = 1 << 30
)

// openS3 reads the attributes. The keys are the client's: buildx takes them from its own environment. The engine's are nobody's business
// who may build.
func (c *Caches) openS3(attrs map[string]string) (place, error) {
	first := func(attr string, env ...string) string {
		if v := attrs[attr]; v != "" {
			return v
		}
		for _, e := range env {
			if v := c.cfg.Env(e); v != "" {
				return v
			}
		}
		return ""
	}
	p := &s3Place{
		bucket: first("bucket", "AWS_BUCKET"), prefix: attrs["prefix"], manifests: "manifests/", blobs: "blobs/", names: strings.Split(first("name"), ";"),
		most: putMax, part: partSize,
	}
	if v, ok := attrs["manifests_prefix"]; ok {
		p.manifests = v
	}
	if v, ok := attrs["blobs_prefix"]; ok {
		p.blobs = v
	}
	if p.names[0] == "" {
		p.names = []string{"buildkit"}
	}
	region := first("region", "AWS_REGION")
	if p.bucket == "" {
		return nil, fault.New(fault.Invalid, "bucket ($AWS_BUCKET) not set for s3 cache")
	}
	if region == "" {
		return nil, fault.New(fault.Invalid, "region ($AWS_REGION) not set for s3 cache")
	}
	pathStyle := false
	if v, ok := attrs["use_path_style"]; ok {
		var err error
		if pathStyle, err = parseBool("use_path_style", v); err != nil {
			return nil, err
		}
	}
	keys := aws.Credentials{AccessKeyID: attrs["access_key_id"], SecretAccessKey: attrs["secret_access_key"], SessionToken: attrs["session_token"], Source: "build"}
	options := s3.Options{
		Region: region, UsePathStyle: pathStyle,
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired, ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	}
	options.Credentials = aws.AnonymousCredentials{}
	if keys.AccessKeyID != "" {
		options.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return keys, nil })
	}
	if v := attrs["endpoint_url"]; v != "" {
		options.BaseEndpoint = aws.String(v)
	}
	p.client = s3.New(options)
	return p, nil
}

func (p *s3Place) name() string { return "s3:" + p.bucket + "/" + p.prefix + p.manifests + p.names[0] }

func (p *s3Place) manifestKey(name string) string { return p.prefix + p.manifests + name }

func (p *s3Place) blobKey(d digest.Digest) string { return p.prefix + p.blobs + string(d) }

func (p *s3Place) table(ctx context.Context) (*document, error) {
	r, err := p.object(ctx, p.manifestKey(p.names[0]))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, documentMax+1))
	if err != nil {
		return nil, s3Error(p.name(), err)
	}
	return parseDocument(raw)
}

func (p *s3Place) object(ctx context.Context, key string) (io.ReadCloser, error) {
	out, err := p.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &p.bucket, Key: &key})
	if err != nil {
		return nil, s3Error(key, err)
	}
	return out.Body, nil
}

func (p *s3Place) publish(ctx context.Context, doc *document) (map[string]string, error) {
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	for _, n := range p.names {
		if err := p.write(ctx, p.manifestKey(n), bytes.NewReader(raw), int64(len(raw))); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (p *s3Place) write(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	_, err := p.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &p.bucket, Key: &key, Body: r, ContentLength: &size})
	return s3Error(key, err)
}

func (p *s3Place) has(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	key := p.blobKey(d.Digest)
	_, err := p.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &p.bucket, Key: &key})
	if err = s3Error(key, err); fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

func (p *s3Place) put(ctx context.Context, d ocispec.Descriptor, open func(offset int64) (io.ReadCloser, error)) error {
	key := p.blobKey(d.Digest)
	if d.Size > p.most {
		return p.putParts(ctx, key, d.Size, open)
	}
	body := &seeking{open: open, size: d.Size}
	defer body.close()
	return p.write(ctx, key, body, d.Size)
}

// putParts writes what is too large for one request. The object is there when all of it is; of one that failed nothing is left to be paid for.
func (p *s3Place) putParts(ctx context.Context, key string, size int64, open func(offset int64) (io.ReadCloser, error)) error {
	begun, err := p.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &p.bucket, Key: &key})
	if err != nil {
		return s3Error(key, err)
	}
	parts, err := p.eachPart(ctx, key, begun.UploadId, size, open)
	if err == nil {
		_, err = p.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: &p.bucket, Key: &key, UploadId: begun.UploadId,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}})
	}
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortPatience)
	defer cancel()
	if _, aerr := p.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &p.bucket, Key: &key, UploadId: begun.UploadId}); aerr != nil {
		err = errors.Join(err, aerr)
	}
	return s3Error(key, err)
}

// abortPatience is how long the store is asked to forget an upload that failed.
const abortPatience = 30 * time.Second

func (p *s3Place) eachPart(ctx context.Context, key string, upload *string, size int64, open func(offset int64) (io.ReadCloser, error)) ([]types.CompletedPart, error) {
	var parts []types.CompletedPart
	for from := int64(0); from < size; from += p.part {
		n, length := int32(len(parts)+1), min(p.part, size-from)
		body := &seeking{open: func(offset int64) (io.ReadCloser, error) { return open(from + offset) }, size: length}
		done, err := p.client.UploadPart(ctx, &s3.UploadPartInput{Bucket: &p.bucket, Key: &key, UploadId: upload, PartNumber: &n, Body: body, ContentLength: &length})
		body.close()
		if err != nil {
			return nil, err
		}
		parts = append(parts, types.CompletedPart{PartNumber: &n, ETag: done.ETag})
	}
	return parts, nil
}

func (p *s3Place) get(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return p.object(ctx, p.blobKey(d.Digest))
}

func (p *s3Place) mount(context.Context, ocispec.Descriptor, []image.Source) bool { return false }

func (p *s3Place) source(ocispec.Descriptor) *image.Source { return nil }

// seeking makes a body that can be read again: the client signs its content first.
type seeking struct {
	open func(offset int64) (io.ReadCloser, error)
	size int64
	at   int64
	r    io.ReadCloser
}

func (s *seeking) Read(b []byte) (int, error) {
	if s.at >= s.size {
		return 0, io.EOF
	}
	if s.r == nil {
		var err error
		if s.r, err = s.open(s.at); err != nil {
			return 0, err
		}
	}
	n, err := s.r.Read(b[:min(int64(len(b)), s.size-s.at)])
	s.at += int64(n)
	return n, err
}

func (s *seeking) close() {
	if s.r != nil {
		s.r.Close()
		s.r = nil
	}
}

func (s *seeking) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.at
	case io.SeekEnd:
		offset += s.size
	}
	if offset < 0 {
		return 0, fault.New(fault.Invalid, "a place before the beginning")
	}
	if offset != s.at {
		s.close()
	}
	s.at = offset
	return offset, nil
}

// s3Error gives an error of the store its kind.
func s3Error(what string, err error) error {
	var response *smithyhttp.ResponseError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &response) && response.HTTPStatusCode() == http.StatusNotFound:
		return fault.New(fault.NotFound, "%s is not there", what)
	case errors.As(err, &response) && response.HTTPStatusCode() == http.StatusForbidden:
		return fault.Wrap(fault.Forbidden, err, "%s", what)
	}
	return fault.Wrap(fault.Unavailable, err, "%s", what)
}

package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"berth/base/fault"
	"berth/registry/storage"
)

// ChunkMin is the size from which a client's chunk does not cost the store more than its bytes.
const ChunkMin = 5 << 20

// linkLife is for how long a URL is good that a client is sent to: long enough to begin a transfer and to ask again for the rest.
const linkLife = 20 * time.Minute

// Config says which bucket and how to reach it.
type Config struct {
	Bucket    string
	Prefix    string // "" or "some/where": in front of all keys
	Endpoint  string // URL of the store; "" is Amazon's of the region
	Region    string // "" is us-east-1
	PathStyle bool   // the bucket in the path instead of the host name, as most stores other than Amazon's want

	AccessKey, SecretKey, SessionToken string

	// Redirect sends clients that pull to the store, by URLs that are good for linkLife, instead of passing the bytes on.
	Redirect bool

	PartSize int // bytes of a part; zero: 8 MiB. Stores refuse less than 5 MiB
}

// ParseURL reads "s3://BUCKET[/PREFIX]?endpoint=URL&region=NAME&path-style=true&part-size=BYTES&redirect=true". The keys are taken from
// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; a region that is not in the URL from AWS_REGION; an endpoint from
// AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL.
func ParseURL(s string, env func(string) string) (Config, error) {
	bad := func(format string, args ...any) (Config, error) {
		return Config{}, fault.New(fault.Invalid, "storage %q: "+format, append([]any{s}, args...)...)
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "s3" || u.Host == "" {
		return bad("want s3://BUCKET[/PREFIX]?endpoint=URL&region=NAME&path-style=true")
	}
	if u.User != nil {
		return bad("keys do not belong into a URL: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	first := func(names ...string) string {
		for _, n := range names {
			if v := env(n); v != "" {
				return v
			}
		}
		return ""
	}
	c := Config{
		Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"),
		Endpoint: first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), Region: first("AWS_REGION", "AWS_DEFAULT_REGION"),
		AccessKey: env("AWS_ACCESS_KEY_ID"), SecretKey: env("AWS_SECRET_ACCESS_KEY"), SessionToken: env("AWS_SESSION_TOKEN"),
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return bad("%v", err)
	}
	for name := range q {
		switch v := q.Get(name); name {
		case "endpoint":
			c.Endpoint = v
		case "region":
			c.Region = v
		case "path-style":
			if c.PathStyle, err = strconv.ParseBool(v); err != nil {
				return bad("path-style is true or false")
			}
		case "redirect":
			if c.Redirect, err = strconv.ParseBool(v); err != nil {
				return bad("redirect is true or false")
			}
		case "part-size":
			if c.PartSize, err = strconv.Atoi(v); err != nil || c.PartSize < 5<<20 {
				return bad("part-size is a number of bytes, at least 5242880")
			}
		default:
			return bad("%q is not known", name)
		}
	}
	if c.AccessKey == "" || c.SecretKey == "" {
		return bad("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	return c, nil
}

// Driver keeps keys in objects.
type Driver struct {
	client   *s3.Client
	bucket   *string
	prefix   string // "" or ends in "/"
	partSize int
	presign  *s3.PresignClient // nil: clients are not sent to the store
}

var (
	_ storage.Driver     = (*Driver)(nil)
	_ storage.Redirector = (*Driver)(nil)
)

// Open reaches for the bucket, which has to exist, and removes what an earlier process has left.
func Open(ctx context.Context, cfg Config) (*Driver, error) {
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	if cfg.PartSize == 0 {
		cfg.PartSize = 8 << 20
	}
	d := &Driver{bucket: aws.String(cfg.Bucket), partSize: cfg.PartSize}
	if cfg.Prefix != "" {
		d.prefix = cfg.Prefix + "/"
	}
	keys := aws.Credentials{AccessKeyID: cfg.AccessKey, SecretAccessKey: cfg.SecretKey, SessionToken: cfg.SessionToken, Source: "environment"}
	options := s3.Options{
		Region:       cfg.Region,
		UsePathStyle: cfg.PathStyle,
		Credentials:  aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return keys, nil }),
		HTTPClient:   httpClient(),
		// Checksums beyond the signature's are an Amazon addition of 2024 that other stores refuse; content is verified by its digest anyway.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	}
	if cfg.Endpoint != "" {
		options.BaseEndpoint = aws.String(cfg.Endpoint)
	}
	d.client = s3.New(options)
	if cfg.Redirect {
		d.presign = s3.NewPresignClient(d.client, s3.WithPresignExpires(linkLife))
	}
	if _, err := d.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: d.bucket}); err != nil {
		return nil, fault.In(storeError("bucket "+cfg.Bucket, err), "opening the object store")
	}
	if err := d.sweep(ctx); err != nil {
		return nil, fault.In(err, "opening the object store")
	}
	return d, nil
}

func httpClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64 // pulls side by side: two, the default, would make a new connection for most requests
	return &http.Client{Transport: t}
}

// key gives the object's name.
func (d *Driver) key(key string) (*string, error) {
	for _, part := range strings.Split(key, "/") {
		if part == "" || part == "." || part == ".." {
			return nil, fault.New(fault.Invalid, "%q is no key", key)
		}
	}
	return aws.String(d.prefix + key), nil
}

// Close has nothing to let go of.
func (d *Driver) Close() error { return nil }

// Read gives the value of a small key.
func (d *Driver) Read(ctx context.Context, key string) ([]byte, error) {
	k, err := d.key(key)
	if err != nil {
		return nil, err
	}
	out, err := d.client.GetObject(ctx, &s3.GetObjectInput{Bucket: d.bucket, Key: k})
	if err != nil {
		return nil, storeError(key, err)
	}
	defer out.Body.Close()
	data, err := io.ReadAll(io.LimitReader(out.Body, storage.SmallValue+1))
	if err != nil {
		return nil, storeError(key, err)
	}
	if len(data) > storage.SmallValue {
		return nil, fault.New(fault.Internal, "%s has more than %d bytes, which is too much to be read whole", key, storage.SmallValue)
	}
	return data, nil
}

// Write sets a small key.
func (d *Driver) Write(ctx context.Context, key string, value []byte) error {
	k, err := d.key(key)
	if err != nil {
		return err
	}
	_, err = d.client.PutObject(ctx, &s3.PutObjectInput{Bucket: d.bucket, Key: k, Body: bytes.NewReader(value)})
	return storeError(key, err)
}

// Stat says what Open would find.
func (d *Driver) Stat(ctx context.Context, key string) (storage.Entry, error) {
	k, err := d.key(key)
	if err != nil {
		return storage.Entry{}, err
	}
	out, err := d.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: d.bucket, Key: k})
	if err != nil {
		return storage.Entry{}, storeError(key, err)
	}
	return storage.Entry{Key: key, Size: aws.ToInt64(out.ContentLength), Modified: modified(out.LastModified)}, nil
}

// Open gives a value to read. The object is asked for when it is read, from where the reader stands.
func (d *Driver) Open(ctx context.Context, key string) (*storage.Content, error) {
	e, err := d.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	return &storage.Content{Body: &object{driver: d, ctx: ctx, key: key, size: e.Size}, Size: e.Size, Modified: e.Modified}, nil
}

// Redirect gives a signed URL.
func (d *Driver) Redirect(ctx context.Context, key string) (string, error) {
	if d.presign == nil {
		return "", nil
	}
	k, err := d.key(key)
	if err != nil {
		return "", err
	}
	r, err := d.presign.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: d.bucket, Key: k, ResponseContentType: aws.String("application/octet-stream")})
	if err != nil {
		return "", storeError(key, err)
	}
	return r.URL, nil
}

// Remove takes a key away.
func (d *Driver) Remove(ctx context.Context, key string) error {
	k, err := d.key(key)
	if err != nil {
		return err
	}
	_, err = d.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: d.bucket, Key: k})
	if err = storeError(key, err); fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// List gives every key below prefix.
func (d *Driver) List(ctx context.Context, prefix string) iter.Seq2[storage.Entry, error] {
	return func(yield func(storage.Entry, error) bool) {
		pages := s3.NewListObjectsV2Paginator(d.client, &s3.ListObjectsV2Input{Bucket: d.bucket, Prefix: aws.String(d.prefix + prefix)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(storage.Entry{}, storeError(prefix, err))
				return
			}
			for _, o := range page.Contents {
				e := storage.Entry{Key: strings.TrimPrefix(aws.ToString(o.Key), d.prefix), Size: aws.ToInt64(o.Size), Modified: modified(o.LastModified)}
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// modified gives a time that is not before the true one: stores cut the fraction off.
func modified(t *time.Time) time.Time { return aws.ToTime(t).Add(time.Second) }

// storeError gives an error of the store its kind. A nil err stays nil.
func storeError(what string, err error) error {
	if err == nil {
		return nil
	}
	var none *types.NoSuchKey
	var upload *types.NoSuchUpload
	var response *smithyhttp.ResponseError
	var api smithy.APIError
	var network net.Error
	switch {
	case errors.As(err, &none), errors.As(err, &upload):
		return fault.New(fault.NotFound, "%s is not there", what)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &response) && response.HTTPStatusCode() == http.StatusNotFound:
		if errors.As(err, &api) && api.ErrorCode() == "NoSuchBucket" {
			return fault.New(fault.Internal, "the bucket does not exist")
		}
		return fault.New(fault.NotFound, "%s is not there", what)
	case errors.As(err, &response) && response.HTTPStatusCode() >= 500, errors.As(err, &network):
		return fault.Wrap(fault.Unavailable, err, "%s: the object store does not answer", what)
	}
	return fault.Wrap(fault.Internal, err, "%s", what)
}

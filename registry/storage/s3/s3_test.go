package s3_test

import (
	"testing"

	"berth/base/fault"
	"berth/registry/storage"
	"berth/registry/storage/drivertest"
	"berth/registry/storage/s3"
	"berth/registry/storage/s3/s3test"
)

func TestDriver(t *testing.T) {
	server := s3test.Start(t)
	drivertest.Run(t, func(t *testing.T) drivertest.Place {
		cfg := server.Bucket(t)
		return drivertest.Place{Open: func(t *testing.T) storage.Driver {
			d, err := s3.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}}
	})
}

func TestParseURL(t *testing.T) {
	keys := map[string]string{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "eu-north-1"}
	for _, c := range []struct {
		url  string
		env  map[string]string
		want s3.Config // zero: refused
	}{
		{"s3://bucket", keys, s3.Config{Bucket: "bucket", Region: "eu-north-1", AccessKey: "a", SecretKey: "s"}},
		{"s3://bucket/a/b/?endpoint=http://127.0.0.1:9000&region=x&path-style=true&part-size=16777216&redirect=true", keys,
			s3.Config{Bucket: "bucket", Prefix: "a/b", Endpoint: "http://127.0.0.1:9000", Region: "x", PathStyle: true, PartSize: 16 << 20, Redirect: true, AccessKey: "a", SecretKey: "s"}},
		{"s3://bucket", nil, s3.Config{}},
		{"s3://", keys, s3.Config{}},
		{"http://bucket", keys, s3.Config{}},
		{"s3://key:secret@bucket", keys, s3.Config{}},
		{"s3://bucket?path-style=perhaps", keys, s3.Config{}},
		{"s3://bucket?part-size=1", keys, s3.Config{}},
		{"s3://bucket?colour=red", keys, s3.Config{}},
	} {
		got, err := s3.ParseURL(c.url, func(name string) string { return c.env[name] })
		if c.want == (s3.Config{}) {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %+v, %v; want Invalid", c.url, got, err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.url, got, err, c.want)
		}
	}
}

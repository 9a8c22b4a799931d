package registry

import (
	"os"
	"testing"

	"berth/registry/distribution/distributiontest"
	"berth/registry/storage/s3/s3test"
)

func TestConformanceOnDirectory(t *testing.T) {
	_, host := open(t, Config{})
	distributiontest.Run(t, distributiontest.Target{URL: "http://" + host})
}

func TestConformanceOnObjectStore(t *testing.T) {
	bucket := s3test.Start(t).Bucket(t)
	t.Setenv("AWS_ACCESS_KEY_ID", bucket.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", bucket.SecretKey)
	_, host := open(t, Config{Storage: "s3://" + bucket.Bucket + "/" + bucket.Prefix + "?path-style=true&endpoint=" + bucket.Endpoint})
	distributiontest.Run(t, distributiontest.Target{URL: "http://" + host})
}

// TestConformanceOfAnother asks a registry that runs elsewhere: BERTH_REGISTRY=http://HOST:PORT.
func TestConformanceOfAnother(t *testing.T) {
	url := os.Getenv("BERTH_REGISTRY")
	if url == "" {
		t.Skip("needs BERTH_REGISTRY=http://HOST:PORT")
	}
	distributiontest.Run(t, distributiontest.Target{URL: url, Prefix: "berth-conformance"})
}

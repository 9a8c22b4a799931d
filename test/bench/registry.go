package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	servedBlob  = 64 << 20 // bytes of the blob that all pull
	servedPulls = 64       // at once
	servedPairs = 7
)

// benchRegistry pulls one blob 64 times at once from our registry and from nginx, alternately: both hand a file to the kernel, so what
// is compared is what they do around it.
func benchRegistry(t *table, o options) error {
	nginx := ""
	for _, p := range []string{"nginx", "/usr/sbin/nginx"} {
		if path, err := exec.LookPath(p); err == nil {
			nginx = path
			break
		}
	}
	if nginx == "" {
		t.note("nginx is not installed")
		return nil
	}
	dir, err := os.MkdirTemp("", "berth-bench-registry-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	blob := make([]byte, servedBlob)
	rand.Read(blob)

	beside, stop, err := serveByNginx(nginx, dir, blob)
	if err != nil {
		return err
	}
	defer stop()
	ours, stop, err := serveByUs(o, dir, blob)
	if err != nil {
		return err
	}
	defer stop()

	var rates, nginxRates []float64
	for i := range servedPairs + 1 {
		a, err := pullAtOnce(ours)
		if err != nil {
			return err
		}
		b, err := pullAtOnce(beside)
		if err != nil {
			return err
		}
		if i > 0 { // the first pair warms up
			rates, nginxRates = append(rates, a), append(nginxRates, b)
		}
	}
	t.row("64 pulls of one 64 MiB blob at once: berth registry", median(rates), 0, "MB/s")
	t.row("the same: nginx", median(nginxRates), 0, "MB/s")
	t.row("time beside nginx's", median(ratios(nginxRates, rates)), 1/0.9, "×")
	return nil
}

// pullAtOnce gives the rate of all pulls together, in MB/s.
func pullAtOnce(url string) (float64, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: servedPulls}}
	defer client.CloseIdleConnections()
	errs := make(chan error, servedPulls)
	began := time.Now()
	var wg sync.WaitGroup
	for range servedPulls {
		wg.Go(func() {
			r, err := client.Get(url)
			if err != nil {
				errs <- err
				return
			}
			defer r.Body.Close()
			n, err := io.CopyBuffer(onlyWriter{io.Discard}, r.Body, make([]byte, 256<<10))
			if err == nil && (n != servedBlob || r.StatusCode != http.StatusOK) {
				err = fmt.Errorf("%s: %s, %d bytes", url, r.Status, n)
			}
			if err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	close(errs)
	return servedPulls * servedBlob / 1e6 / took.Seconds(), <-errs
}

// onlyWriter hides io.Discard's own way of reading, whose buffers are small.
type onlyWriter struct{ io.Writer }

func serveByNginx(nginx, dir string, blob []byte) (url string, stop func(), err error) {
	addr, err := freeAddr()
	if err != nil {
		return "", nil, err
	}
	www := filepath.Join(dir, "www")
	if err := os.Mkdir(www, 0o755); err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(filepath.Join(www, "blob"), blob, 0o644); err != nil {
		return "", nil, err
	}
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf("daemon off; worker_processes auto; pid %[1]s/nginx.pid; error_log %[1]s/nginx.log;\nevents { worker_connections 1024; }\nhttp { access_log off; sendfile on; tcp_nopush on; client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3; uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;\nserver { listen %[2]s; root %[3]s; } }\n", dir, addr, www)
	if os.Getuid() == 0 {
		text = "user root;\n" + text
	}
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return "", nil, err
	}
	stop, err = background(exec.Command(nginx, "-c", config), "http://"+addr+"/blob")
	return "http://" + addr + "/blob", stop, err
}

func serveByUs(o options, dir string, blob []byte) (url string, stop func(), err error) {
	addr, err := freeAddr()
	if err != nil {
		return "", nil, err
	}
	stop, err = background(exec.Command(filepath.Join(o.bin, "berthd"), "registry", "serve", "--addr", addr, "--root", filepath.Join(dir, "registry"), "--log-level", "error"), "http://"+addr+"/v2/")
	if err != nil {
		return "", nil, err
	}
	d := digest.FromBytes(blob).String()
	r, err := http.Post("http://"+addr+"/v2/bench/blobs/uploads/?digest="+d, "application/octet-stream", bytes.NewReader(blob))
	if err == nil {
		r.Body.Close()
		if r.StatusCode != http.StatusCreated {
			err = fmt.Errorf("push of the blob: %s", r.Status)
		}
	}
	if err != nil {
		stop()
		return "", nil, err
	}
	return "http://" + addr + "/v2/bench/blobs/" + d, stop, nil
}

// background starts a server and waits until it answers.
func background(cmd *exec.Cmd, url string) (stop func(), err error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() { cmd.Process.Signal(os.Interrupt); cmd.Wait() }
	for range 200 {
		if r, err := http.Head(url); err == nil {
			r.Body.Close()
			return stop, nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	stop()
	return nil, errors.New(cmd.Path + " does not answer: " + out.String())
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

package registry

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"sync"
	"time"

	"berth/base/fault"
)

// checkTLS refuses settings that cannot be served with, before anything is opened, listened at or announced.
func (r *Registry) checkTLS() error {
	switch c := r.cfg; {
	case c.TLSCert == "" && c.TLSKey == "" && c.TLSCA == "":
		return nil
	case c.TLSCert == "" && c.TLSKey == "":
		return fault.New(fault.Invalid, "clients can be asked for certificates only with TLS: the TLS CA needs a TLS certificate and a key beside it")
	case c.TLSCert == "":
		return fault.New(fault.Invalid, "the TLS key %s is there, its certificate is not said", c.TLSKey)
	case c.TLSKey == "":
		return fault.New(fault.Invalid, "the TLS certificate %s is there, its key is not said", c.TLSCert)
	}
	_, err := r.tls()
	return err
}

// tls gives the settings of a server with the certificate of cfg. The files are read now, so that a wrong one is refused at start.
func (r *Registry) tls() (*tls.Config, error) {
	c := &certificate{cert: r.cfg.TLSCert, key: r.cfg.TLSKey, log: r.cfg.Log}
	if _, err := c.load(); err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.get(), nil }}
	if r.cfg.TLSCA == "" {
		return t, nil
	}
	pem, err := os.ReadFile(r.cfg.TLSCA)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "TLS CA")
	}
	t.ClientAuth, t.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !t.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.Invalid, "TLS CA: %s has no certificate", r.cfg.TLSCA)
	}
	return t, nil
}

// certLook is how often the files are looked at, when somebody connects.
const certLook = time.Second

// certificate is a certificate in files that somebody renews while we serve.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu     sync.Mutex
	have   *tls.Certificate
	of     [2]time.Time // modification times of what we have
	looked time.Time
}

// get gives the newest certificate. A pair that cannot be read, such as one of which half is written, leaves the one before in use.
func (c *certificate) get() *tls.Certificate {
	c.mu.Lock()
	have, due := c.have, time.Since(c.looked) > certLook
	if due {
		c.looked = time.Now()
	}
	c.mu.Unlock()
	if !due {
		return have
	}
	fresh, err := c.load()
	if err != nil {
		c.log.Error("the TLS certificate cannot be read, the one before stays in use", "error", err)
		return have
	}
	return fresh
}

// load reads the files if they have changed.
func (c *certificate) load() (*tls.Certificate, error) {
	var now [2]time.Time
	for i, file := range []string{c.cert, c.key} {
		info, err := os.Stat(file)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "TLS certificate")
		}
		now[i] = info.ModTime()
	}
	c.mu.Lock()
	have, same := c.have, c.of == now
	c.mu.Unlock()
	if have != nil && same {
		return have, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "TLS certificate")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.have, c.of, c.looked = &pair, now, time.Now()
	return c.have, nil
}

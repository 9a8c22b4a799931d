package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/base/fault"
)

// ListenConfig says where to listen.
type ListenConfig struct {
	Hosts []string // unix:///PATH, tcp://HOST:PORT, fd://[name or number]
	Group string   // group of unix sockets, if it exists

	TLS      *tls.Config // of tcp sockets; nil: plain
	Insecure bool        // plain tcp on any address is what the operator wants

	Log *slog.Logger
}

// Listen opens every socket, or none. Sockets of fd:// were opened by systemd, see sd_listen_fds(3).
func Listen(cfg ListenConfig) (_ []net.Listener, err error) {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var all []net.Listener
	defer func() {
		if err != nil {
			for _, l := range all {
				l.Close()
			}
		}
	}()
	for _, host := range cfg.Hosts {
		scheme, address, ok := strings.Cut(host, "://")
		if !ok {
			return all, fault.New(fault.Invalid, "%q has no scheme: write unix:///PATH, tcp://HOST:PORT or fd://", host)
		}
		var ls []net.Listener
		switch scheme {
		case "unix":
			ls, err = one(listenUnix(address, cfg.Group, log))
		case "tcp":
			ls, err = one(listenTCP(address, &cfg, log))
		case "fd":
			ls, err = inherited(address)
		default:
			err = fault.New(fault.Invalid, "invalid bind address (%s): unsupported proto '%s'", host, scheme)
		}
		if err != nil {
			return all, err
		}
		all = append(all, ls...)
	}
	return all, nil
}

func one(l net.Listener, err error) ([]net.Listener, error) {
	if err != nil {
		return nil, err
	}
	return []net.Listener{l}, nil
}

// listenUnix opens a socket that only root and group may use. It is made under another name and renamed when its owner and mode
// are right, so that nobody gets in before; and a socket on which somebody still listens is left alone.
func listenUnix(path, group string, log *slog.Logger) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, fault.New(fault.Invalid, "unix://%s: the path of a unix socket must be absolute", path)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fault.New(fault.Conflict, "another engine already listens on %s", path)
	} else if info, e := os.Lstat(path); e == nil && info.Mode()&os.ModeSocket == 0 {
		return nil, fault.New(fault.Conflict, "%s is there and is no socket", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "making the socket's directory")
	}
	temporary := path + "~"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fault.Wrap(fault.Internal, err, "removing a left-over socket")
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "listening on %s", path)
	}
	l.SetUnlinkOnClose(false)
	err = share(temporary, path, group, log)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		l.Close()
		os.Remove(temporary)
		return nil, fault.Wrap(fault.Internal, err, "setting up %s", path)
	}
	made, err := os.Lstat(path)
	if err != nil {
		l.Close()
		return nil, fault.Wrap(fault.Internal, err, "setting up %s", path)
	}
	return &unixListener{l, path, made}, nil
}

// share gives a socket, which will be called name, to a group: 0660; where there is no such group, 0600.
func share(path, name, group string, log *slog.Logger) error {
	if group != "" {
		if g, err := user.LookupGroup(group); err == nil {
			gid, err := strconv.Atoi(g.Gid)
			if err != nil {
				return err
			}
			if err := os.Chown(path, os.Getuid(), gid); err != nil {
				return err
			}
			return os.Chmod(path, 0o660)
		}
		if gid, err := strconv.Atoi(group); err == nil {
			if err := os.Chown(path, os.Getuid(), gid); err != nil {
				return err
			}
			return os.Chmod(path, 0o660)
		}
		log.Debug("no such group: the socket is for this user only", "group", group, "socket", name)
	}
	return os.Chmod(path, 0o600)
}

// unixListener removes its socket at the end, unless another has taken the name meanwhile.
type unixListener struct {
	*net.UnixListener
	path string
	made os.FileInfo
}

// Addr gives the socket's final name.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close stops listening and removes the socket.
func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.made) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// listenTCP opens a TCP socket. Whoever reaches a plain one is root on this machine, so anything but the loopback needs TLS or
// a word that it is meant so.
func listenTCP(address string, cfg *ListenConfig, log *slog.Logger) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "tcp://%s: write tcp://HOST:PORT", address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "listening on tcp://%s", address)
	}
	if cfg.TLS != nil {
		return tls.NewListener(l, cfg.TLS), nil
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() && !cfg.Insecure {
		l.Close()
		return nil, fault.New(fault.Invalid, "tcp://%s without TLS makes everybody who reaches it root on this machine: use --tlsverify, or say --tls=false if that is what you want", address)
	}
	log.Warn("the API is served without TLS: whoever reaches the socket is root on this machine", "address", l.Addr().String())
	return l, nil
}

// inherited gives sockets that systemd has opened: all of them, or the ones that which names, by number or FileDescriptorName.
func inherited(which string) ([]net.Listener, error) {
	const first = 3
	pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID"))
	count, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if pid != os.Getpid() || count < 1 {
		return nil, fault.New(fault.Invalid, "fd://%s: no sockets found via socket activation: make sure the service was started by systemd", which)
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	var all []net.Listener
	for i := range count {
		fd := first + i
		syscall.CloseOnExec(fd)
		named := i < len(names) && names[i] == which
		if which != "" && which != "*" && !named && which != strconv.Itoa(fd) {
			continue
		}
		file := os.NewFile(uintptr(fd), fmt.Sprintf("fd://%d", fd))
		l, err := net.FileListener(file)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "fd://%d is no listening socket", fd)
		}
		file.Close() // net has a duplicate
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // it is systemd's
		}
		all = append(all, l)
	}
	if len(all) == 0 {
		return nil, fault.New(fault.Invalid, "fd://%s: systemd passed no such socket", which)
	}
	return all, nil
}

// TLS reads the certificates that a tcp socket needs; errors have the words of dockerd. With verify, only clients with a certificate
// signed by ca get in.
func TLS(ca, cert, key string, verify bool) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "Could not load X509 key pair (cert: %q, key: %q)", cert, key)
	}
	// HTTP/2 is left out: connections are taken over for attach.
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if !verify {
		return cfg, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "could not read CA certificate")
	}
	cfg.ClientCAs, cfg.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.Invalid, "failed to append certificates from PEM file: %q", ca)
	}
	return cfg, nil
}

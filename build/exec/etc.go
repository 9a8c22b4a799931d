package exec

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/kernel/lsm/selinux"
)

// etcFiles are paths of the files that are bound into /etc. They are named by their content, so that steps share them.
type etcFiles struct{ resolv, hosts string }

// etcFiles gives a step's files, which steps of all labels may read.
func (b *box) etcFiles() (f etcFiles, err error) {
	cfg := b.cfg
	resolv := b.net.Resolv
	if resolv == nil {
		if resolv, err = os.ReadFile("/etc/resolv.conf"); err != nil && !os.IsNotExist(err) {
			return f, fault.Wrap(fault.Internal, err, "read the host's resolv.conf")
		}
	}
	hosts, err := hostsText(cfg.hostname, cfg.hosts)
	if err != nil {
		return f, err
	}
	if f.resolv, err = b.etcFile(resolv); err != nil {
		return f, err
	}
	f.hosts, err = b.etcFile(append([]byte(hosts), b.net.Hosts...))
	return f, err
}

// hostsText is BuildKit's /etc/hosts.
func hostsText(hostname string, extra []*pb.HostIP) (string, error) {
	if hostname == "" {
		hostname = defaultHostname
	}
	var s strings.Builder
	s.WriteString("127.0.0.1\tlocalhost " + hostname + "\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, h := range extra {
		ip, err := netip.ParseAddr(h.IP)
		if err != nil {
			return "", fault.New(fault.Invalid, "failed to parse IP %s", h.IP)
		}
		if strings.ContainsAny(h.Host, "\n\r\t \x00#") {
			return "", fault.New(fault.Invalid, "invalid host name %q", h.Host)
		}
		s.WriteString(ip.String() + "\t" + h.Host + "\n")
	}
	return s.String(), nil
}

// etcFile gives the path of a file with that text, which is the root's of the box's mapping.
func (b *box) etcFile(text []byte) (string, error) {
	r, ids := b.r, b.ids
	sum := sha256.Sum256(text)
	file := filepath.Join(r.cfg.ExecRoot, "etc", hex.EncodeToString(sum[:16]))
	var uid, gid uint32
	if ids != nil {
		uid, gid, _ = ids.Root()
		file += fmt.Sprintf("-%d-%d", uid, gid)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.etcs[file] {
		return file, nil
	}
	// Of this boot only: Open clears the directory.
	tmp := file + ".new"
	if err := os.WriteFile(tmp, text, 0o644); err != nil {
		return "", fault.Wrap(fault.Internal, err, "write a step's /etc files")
	}
	if err := os.Chown(tmp, int(uid), int(gid)); ids != nil && err != nil {
		return "", fault.Wrap(fault.Internal, err, "write a step's /etc files")
	}
	if err := selinux.Relabel(tmp, b.confined.MountLabel, true); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, file); err != nil {
		return "", fault.Wrap(fault.Internal, err, "write a step's /etc files")
	}
	if r.etcs == nil {
		r.etcs = map[string]bool{}
	}
	r.etcs[file] = true
	return file, nil
}

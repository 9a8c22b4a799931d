package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/build/exec/host"
)

// program runs git for one remote and one build.
type program struct {
	boxes    *host.Runner
	programs []string // where git is, if that is nowhere where programs are
	writable []string // directories that git may change
	readable []string // and others that it may read

	path    string   // of git
	dir     string   // working directory; "" is /
	gitDir  string   // "" without a repository
	tree    string   // work tree, or ""
	index   string   // index file, or "" for the repository's own
	remote  string   // what "origin" means
	config  []string // further settings, name and value in turn
	sshSock string
	known   string // file of known hosts
	local   bool   // origin is a repository of ours: there is no network
	log     io.Writer
	secrets []string // taken out of what git says
}

// maxSaid bounds what is kept of what git says, in bytes.
const maxSaid = 1 << 20

// settings are what git must not decide by itself. It reads them from the environment (git-config(1), GIT_CONFIG_COUNT; git 2.31), where
// they go before every file.
var settings = []string{
	"core.hooksPath", "/dev/null",
	"core.fsmonitor", "false",
	"core.askPass", "",
	"core.symlinks", "true",
	"core.fileMode", "true",
	"core.protectNTFS", "true",
	"core.pager", "cat",
	"credential.helper", "",
	"diff.external", "",
	"gc.auto", "0",
	"maintenance.auto", "false",
	"fetch.recurseSubmodules", "false",
	"submodule.recurse", "false",
	"init.defaultBranch", "master",
	"transfer.credentialsInUrl", "allow", // ours come that way and stay in the environment
	"protocol.ext.allow", "never",
	"safe.directory", "*", // the trees are ours, whoever runs us
}

// run runs git in a box (build/exec/host) and gives what it printed. What it says on the way goes to the log.
func (p *program) run(ctx context.Context, args ...string) (string, error) {
	cmd := host.Command{
		Args: append([]string{p.path}, args...), Env: p.env(), Dir: p.dir, Writable: p.writable, Readable: p.visible(), Programs: p.programs, Network: !p.local,
	}
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	var out, said bounded
	logged := p.logger()
	cmd.Stdout, cmd.Stderr = &out, io.MultiWriter(&said, logged)
	err := p.boxes.Run(ctx, cmd)
	logged.flush()
	if ctx.Err() != nil {
		return "", fault.In(context.Cause(ctx), "git %s", args[0])
	}
	if _, failed := errors.AsType[*host.ExitError](err); failed {
		return "", &failure{cmd: args[0], said: p.clean(strings.TrimSpace(said.String())), err: err}
	}
	if err != nil {
		return "", fault.In(err, "git %s", args[0])
	}
	return out.String(), nil
}

// visible lists what git reads besides the host's programs and its repository.
func (p *program) visible() []string {
	list := slices.Clone(p.readable)
	for _, f := range []string{p.sshSock, p.known} {
		if f != "" {
			list = append(list, f)
		}
	}
	if cert := os.Getenv("SSL_CERT_FILE"); cert != "" && !p.local {
		if _, err := os.Stat(cert); err == nil {
			list = append(list, cert)
		}
	}
	return list
}

// quiet is the same without a log.
func (p *program) quiet() *program {
	q := *p
	q.log = nil
	return &q
}

// failure is a git that failed.
type failure struct {
	cmd, said string
	err       error
}

// Error gives what git said.
func (f *failure) Error() string {
	if f.said == "" {
		return fmt.Sprintf("git %s: %v", f.cmd, f.err)
	}
	return fmt.Sprintf("git %s: %v: git stderr:\n%s", f.cmd, f.err, f.said)
}

// Unwrap gives the process's end.
func (f *failure) Unwrap() error { return f.err }

// said reports whether git failed and said one of the texts.
func said(err error, texts ...string) bool {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		return false
	}
	for _, t := range texts {
		if strings.Contains(f.said, t) {
			return true
		}
	}
	return false
}

// env is all that git knows of the host.
func (p *program) env() []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"LC_ALL=C", // so that what it says can be understood
		"HOME=/dev/null", "XDG_CONFIG_HOME=/dev/null",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false", "SSH_ASKPASS=/bin/false",
		"GIT_CEILING_DIRECTORIES=" + filepath.Dir(p.dir), // no repository is looked for above the directory
		"GIT_LITERAL_PATHSPECS=1",                        // a path is a path
		"GIT_SSH_COMMAND=" + p.ssh(),
	}
	if p.local {
		env = append(env, "GIT_ALLOW_PROTOCOL=file")
	} else {
		env = append(env, "GIT_ALLOW_PROTOCOL=https:http:ssh:git")
	}
	for _, v := range []struct{ name, value string }{
		{"GIT_DIR", p.gitDir}, {"GIT_WORK_TREE", p.tree}, {"GIT_INDEX_FILE", p.index}, {"SSH_AUTH_SOCK", p.sshSock},
	} {
		if v.value != "" {
			env = append(env, v.name+"="+v.value)
		}
	}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"} {
		for _, n := range []string{name, strings.ToLower(name)} {
			if v, ok := os.LookupEnv(n); ok {
				env = append(env, n+"="+v)
			}
		}
	}
	if v := os.Getenv("SSL_CERT_FILE"); v != "" {
		env = append(env, "GIT_SSL_CAINFO="+v) // what the engine itself goes by
	}
	config := append(append([]string{}, settings...), p.config...)
	if p.remote != "" {
		config = append(config, "remote.origin.url", p.remote)
	}
	env = append(env, "GIT_CONFIG_COUNT="+strconv.Itoa(len(config)/2))
	for i := 0; i+1 < len(config); i += 2 {
		n := strconv.Itoa(i / 2)
		env = append(env, "GIT_CONFIG_KEY_"+n+"="+config[i], "GIT_CONFIG_VALUE_"+n+"="+config[i+1])
	}
	return env
}

// ssh is the command that git runs for ssh: without the host's configuration, keys and agent.
func (p *program) ssh() string {
	c := "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none -o GlobalKnownHostsFile=/dev/null -o PermitLocalCommand=no -o ControlPath=none"
	if p.known != "" {
		return c + " -o UserKnownHostsFile=" + p.known
	}
	return c + " -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no"
}

// clean takes secrets out of a text.
func (p *program) clean(s string) string {
	for _, secret := range p.secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "xxxxx")
		}
	}
	return s
}

// hide takes the secrets of an address out of everything that is logged.
func (p *program) hide(remote string) {
	u, err := url.Parse(remote)
	if err != nil || u.User == nil {
		return
	}
	p.secrets = append(p.secrets, u.User.String()+"@")
	if pw, ok := u.User.Password(); ok {
		p.secrets = append(p.secrets, pw, url.QueryEscape(pw))
	}
}

func (p *program) logger() *lines { return &lines{p: p} }

// lines passes whole lines on, cleaned.
type lines struct {
	p   *program
	buf bytes.Buffer
}

// Write takes a part of the log.
func (l *lines) Write(b []byte) (int, error) {
	if l.p.log == nil {
		return len(b), nil
	}
	l.buf.Write(b)
	if i := bytes.LastIndexAny(l.buf.Bytes(), "\n\r"); i >= 0 {
		_, _ = io.WriteString(l.p.log, l.p.clean(string(l.buf.Next(i+1))))
	} else if l.buf.Len() > 64<<10 {
		l.flush()
	}
	return len(b), nil
}

func (l *lines) flush() {
	if l.p.log != nil && l.buf.Len() > 0 {
		_, _ = io.WriteString(l.p.log, l.p.clean(string(l.buf.Next(l.buf.Len()))))
	}
}

// bounded keeps the beginning of what is written.
type bounded struct{ bytes.Buffer }

// Write takes all and keeps what fits.
func (b *bounded) Write(p []byte) (int, error) {
	if room := maxSaid - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

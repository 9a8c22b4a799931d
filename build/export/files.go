package export

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	commontypes "github.com/moby/buildkit/exporter/exptypes"
	"github.com/moby/buildkit/session/filesync"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/build/attest"
	"berth/build/progress"
	"berth/build/session"
)

// fileOptions are the attributes of outputs that are files, in BuildKit's words.
type fileOptions struct {
	epoch  epoch
	prefix string // attestation-prefix: before the names of attestations
	split  *bool  // platform-split: a directory for each platform; nil: where there are several
	mirror bool   // mode=delete: what is not in the result is deleted at the client
}

func parseFiles(attrs map[string]string) (*fileOptions, error) {
	o := &fileOptions{}
	for k, v := range attrs {
		var err error
		switch k {
		case string(commontypes.OptKeySourceDateEpoch):
			o.epoch.set = true
			o.epoch.time, err = parseEpoch(v)
		case "attestation-prefix":
			o.prefix = v
		case "platform-split":
			var b bool
			b, err = parseBool(k, v)
			o.split = &b
		case "mode":
			switch v {
			case "", "copy":
			case "delete":
				o.mirror = true
			default:
				err = fault.New(fault.Invalid, "invalid local exporter mode %q: want copy or delete", v)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return o, nil
}

// splits reports whether each platform gets a directory.
func (o *fileOptions) splits(several bool) bool {
	if o.split != nil {
		return *o.split
	}
	return several
}

// piece is the tree of one platform.
type piece struct {
	id    string
	ref   Ref
	epoch *time.Time
	said  []Attestation
	fs    fsutil.FS
}

// exportFiles sends the files of a result to the client.
func (o *Output) exportFiles(ctx context.Context, res *Result, run *Run) (*Done, error) {
	several := len(res.Refs) > 0
	pieces, err := o.pieces(res, several)
	if err != nil {
		return nil, err
	}
	caller, err := o.e.caller(ctx, run)
	if err != nil {
		return nil, err
	}
	for _, p := range pieces {
		done, err := o.show(ctx, p, several)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	split := o.files.splits(several)
	if !split {
		if err := collisions(ctx, pieces); err != nil {
			return nil, err
		}
	}
	if o.req.Type == Tar {
		return &Done{}, o.sendTar(ctx, caller, run, pieces, split)
	}
	return &Done{}, o.sendFiles(ctx, caller, run, pieces, split)
}

// pieces lists the platforms of a result.
func (o *Output) pieces(res *Result, several bool) (list []*piece, err error) {
	if _, ok := res.Metadata[exptypes.ExporterPlatformsKey]; several && !ok {
		return nil, fault.New(fault.Invalid, "unable to export multiple refs, missing platforms mapping")
	}
	ps, err := exptypes.ParsePlatforms(res.Metadata)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "platforms of the result")
	}
	if !several && len(ps.Platforms) > 1 {
		return nil, fault.New(fault.Invalid, "unable to export multiple platforms without map")
	}
	for _, p := range ps.Platforms {
		ref, ok := res.FindRef(p.ID)
		if !ok {
			return nil, fault.New(fault.Invalid, "failed to find ref for ID %s", p.ID)
		}
		x := &piece{id: p.ID, ref: ref, said: wanted(res.Attestations[p.ID], false)}
		if x.epoch, err = o.files.epoch.of(res.Metadata, p.ID); err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, nil
}

// show opens a platform's tree, with its attestations beside it. Call what it gives when the tree is not needed any more.
func (o *Output) show(ctx context.Context, p *piece, several bool) (func(), error) {
	p.fs = emptyFS{}
	done := func() {}
	if p.ref != nil {
		snap, err := p.ref.Result(ctx)
		if err != nil {
			return nil, err
		}
		if snap != nil {
			if err := snap.Ready(ctx); err != nil {
				return nil, err
			}
			root, err := snap.Open(ctx)
			if err != nil {
				return nil, err
			}
			done = func() { root.Close() }
			p.fs = &treeFS{root: root, epoch: p.epoch}
		}
	}
	if len(p.said) == 0 {
		return done, nil
	}
	more, err := o.attestations(ctx, p, several && !o.files.splits(several))
	if err != nil {
		done()
		return nil, err
	}
	p.fs = &plusFS{FS: p.fs, more: more}
	return done, nil
}

// attestations makes the files that attest a tree: their subjects are its files.
func (o *Output) attestations(ctx context.Context, p *piece, platformInName bool) (map[string]plusFile, error) {
	list, err := o.e.read(about(ctx, subject{epoch: p.epoch}), p.said)
	if err != nil {
		return nil, err
	}
	subjects, err := fileSubjects(ctx, p.fs)
	if err != nil {
		return nil, err
	}
	files := map[string]plusFile{}
	for _, s := range list {
		raw, err := json.MarshalIndent(s.statement(subjects), "", "  ")
		if err != nil {
			return nil, err
		}
		name := o.files.prefix + path.Base(s.path)
		if platformInName {
			ext := path.Ext(name)
			name = strings.TrimSuffix(name, ext) + "." + platformDir(p.id) + ext
		}
		if _, taken := files[name]; taken || strings.ContainsRune(name, '/') {
			return nil, fault.New(fault.Invalid, "duplicate or invalid attestation path name %s", name)
		}
		st := &fstypes.Stat{Path: name, Mode: 0o600, Size: int64(len(raw)), ModTime: time.Now().Truncate(time.Second).UnixNano()}
		if p.epoch != nil {
			st.ModTime = p.epoch.UnixNano()
		}
		files[name] = plusFile{st, raw}
	}
	return files, nil
}

// fileSubjects are the regular files of a tree.
func fileSubjects(ctx context.Context, tree fsutil.FS) (list []attest.Subject, err error) {
	err = tree.Walk(ctx, "", func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := tree.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		h := digest.SHA256.Digester()
		if _, err := io.Copy(h.Hash(), f); err != nil {
			return err
		}
		list = append(list, attest.Subject{Name: name, Digest: map[string]string{"sha256": h.Digest().Encoded()}})
		return nil
	})
	return list, err
}

// collisions refuses platforms that would overwrite each other's files.
func collisions(ctx context.Context, pieces []*piece) error {
	if len(pieces) < 2 {
		return nil
	}
	owner := map[string]string{}
	for _, p := range pieces {
		err := p.fs.Walk(ctx, "", func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			if other, ok := owner[name]; ok {
				return fault.New(fault.Invalid, "cannot overwrite %s from %s with %s when split option is disabled", name, other, p.id)
			}
			owner[name] = p.id
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sendFiles copies files into the client's directory: platform after platform, or all as one where what is not among them is
// deleted there.
func (o *Output) sendFiles(ctx context.Context, caller session.Caller, run *Run, pieces []*piece, split bool) error {
	if o.files.mirror {
		all, err := together(pieces, split)
		if err != nil {
			return err
		}
		return copyFiles(ctx, caller, run, o.req.ID, "copying files", all, true)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range pieces {
		label, shown := "copying files", p.fs
		if split {
			label += " " + p.id
			var err error
			if shown, err = fsutil.SubDirFS([]fsutil.Dir{p.dir()}); err != nil {
				return err
			}
		}
		g.Go(session.Safe(func() error { return copyFiles(ctx, caller, run, o.req.ID, label, shown, false) }))
	}
	return g.Wait()
}

func copyFiles(ctx context.Context, caller session.Caller, run *Run, id int, label string, shown fsutil.FS, whole bool) error {
	begun, last := time.Now(), time.Time{}
	told := func(n int, end bool) {
		now := time.Now()
		if !end && now.Sub(last) < 100*time.Millisecond {
			return
		}
		last = now
		s := progress.Status{ID: label, Name: "transferring", Current: int64(n), Timestamp: now, Started: &begun}
		if end {
			s.Completed = &now
		}
		run.status(s)
	}
	return copyTree(ctx, caller, id, shown, whole, told)
}

// together gives the files of all platforms as one tree.
func together(pieces []*piece, split bool) (fsutil.FS, error) {
	if split {
		var dirs []fsutil.Dir
		for _, p := range pieces {
			dirs = append(dirs, p.dir())
		}
		return fsutil.SubDirFS(dirs)
	}
	if len(pieces) != 1 {
		return nil, fault.New(fault.Invalid, "several platforms go into one directory only with platform-split")
	}
	return pieces[0].fs, nil
}

// dir is a platform's directory.
func (p *piece) dir() fsutil.Dir {
	st := &fstypes.Stat{Path: platformDir(p.id), Mode: uint32(os.ModeDir | 0o755)}
	if p.epoch != nil {
		st.ModTime = p.epoch.UnixNano()
	}
	return fsutil.Dir{FS: p.fs, Stat: st}
}

// platformDir is a platform's name as one element of a path: linux_amd64.
func platformDir(id string) string {
	id = strings.NewReplacer("/", "_", `\`, "_", ":", "_").Replace(id)
	if id == "." || id == ".." {
		return strings.Repeat("_", len(id))
	}
	return id
}

// sendTar sends all files as one archive.
func (o *Output) sendTar(ctx context.Context, caller session.Caller, run *Run, pieces []*piece, split bool) error {
	all, err := together(pieces, split)
	if err != nil {
		return err
	}
	return run.step("sending tarball", func() error {
		w, err := filesync.CopyFileWriter(ctx, nil, o.req.ID, caller)
		if err != nil {
			return err
		}
		if err := fsutil.WriteTar(ctx, all, w); err != nil {
			w.Close()
			return fmt.Errorf("write tar: %w", err)
		}
		return w.Close()
	})
}

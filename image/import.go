package image

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image/archive"
	"berth/image/layer"
)

// ImportOptions say what becomes of an imported tree.
type ImportOptions struct {
	Ref      string   // name for the image, "" for none
	Changes  []string // Dockerfile instructions, see ApplyChanges
	Message  string   // comment in the history; "" for Docker's "Imported from -"
	Platform string   // "" for this machine's
}

// Import makes an image of one layer from the tar of a whole tree, compressed or not, and gives its id.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (string, error) {
	platform := HostPlatform()
	if o.Platform != "" {
		var err error
		if platform, err = ParsePlatform(o.Platform); err != nil {
			return "", err
		}
		if !runnable(platform.OS) {
			return "", fault.New(fault.Invalid, "operating system is not supported: a %s image cannot be imported on linux", platform.OS)
		}
	}
	names, err := optionalName(o.Ref)
	if err != nil {
		return "", err
	}
	config, err := ApplyChanges(RunConfig{}, o.Changes)
	if err != nil {
		return "", err
	}
	if o.Message == "" {
		o.Message = "Imported from -"
	}
	st, err := s.layers.Stage(ctx, r, "")
	if err != nil {
		return "", err
	}
	defer st.Drop()
	if err := s.layers.Commit(st); err != nil {
		return "", err
	}
	defer s.layers.Release(st.DiffID)
	now := time.Now().UTC()
	doc := Document{
		Created: &now, Platform: platform, Config: config, Comment: o.Message,
		RootFS:  RootFS{Type: "layers", DiffIDs: []digest.Digest{st.DiffID}},
		History: []HistoryLine{{Created: &now, Comment: o.Message}},
	}
	img, err := s.make(ctx, &doc, "", names)
	if err != nil {
		return "", err
	}
	s.emit(Event{Action: "import", ID: img.ID, Name: img.ID})
	return img.ID, nil
}

// make registers an image of our own making.
func (s *Store) make(ctx context.Context, doc *Document, parent digest.Digest, names []ref.Ref) (*Image, error) {
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	img, _, err := s.Register(ctx, Registration{Config: raw, Parent: parent, Names: names})
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		s.emit(Event{Action: "tag", ID: img.ID, Name: n.Familiar()})
	}
	return img, nil
}

func optionalName(text string) ([]ref.Ref, error) {
	if text == "" {
		return nil, nil
	}
	n, err := ref.ParseTagged(text)
	return []ref.Ref{n}, err
}

// CommitOptions say how a container becomes an image.
type CommitOptions struct {
	ContainerID string // whose layer it is
	Ref         string // name for the image, "" for none
	Author      string
	Comment     string
	Changes     []string          // Dockerfile instructions, applied to Config
	Config      RunConfig         // the container's: what the image shall give its containers
	Owner       archive.OwnerFunc // maps owners on disk back, for containers in a user namespace
}

// Commit makes an image of a container's layer on top of its image, and gives its id. The container should not be
// writing meanwhile: the engine pauses it.
func (s *Store) Commit(ctx context.Context, o CommitOptions) (string, error) {
	names, err := optionalName(o.Ref)
	if err != nil {
		return "", err
	}
	config, err := ApplyChanges(o.Config, o.Changes)
	if err != nil {
		return "", err
	}
	chain, imageID, err := s.layers.Chain(o.ContainerID)
	if err != nil {
		return "", err
	}
	doc := Document{Platform: HostPlatform(), RootFS: RootFS{Type: "layers"}}
	parent := s.known(imageID)
	if parent != "" {
		raw, err := s.Raw(string(parent))
		if err != nil {
			return "", err
		}
		base, err := ParseDocument(raw)
		if err != nil {
			return "", err
		}
		doc.Platform, doc.History = base.platform(), base.History
	}
	if len(chain) >= layer.MaxDepth {
		return "", fault.New(fault.Invalid, "max depth exceeded")
	}
	st, err := s.stageContainer(ctx, o)
	if err != nil {
		return "", err
	}
	defer st.Drop()
	if err := s.layers.Retain(chain...); err != nil {
		return "", err
	}
	defer s.layers.Release(chain...)
	now := time.Now().UTC()
	doc.Created, doc.Author, doc.Comment, doc.Container, doc.Config = &now, o.Author, o.Comment, o.ContainerID, config
	line := HistoryLine{Created: &now, Author: o.Author, Comment: o.Comment, CreatedBy: strings.Join(o.Config.Cmd, " "), EmptyLayer: st.DiffID == emptyTar}
	doc.History = append(doc.History, line)
	doc.RootFS.DiffIDs = append(doc.RootFS.DiffIDs, chain...)
	if !line.EmptyLayer {
		if err := s.layers.Commit(st); err != nil {
			return "", err
		}
		defer s.layers.Release(st.DiffID)
		doc.RootFS.DiffIDs = append(doc.RootFS.DiffIDs, st.DiffID)
	}
	img, err := s.make(ctx, &doc, parent, names)
	if err != nil {
		return "", err
	}
	return img.ID, nil
}

// emptyTar is the digest of a tar without entries: a container that changed nothing.
const emptyTar digest.Digest = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

// stageContainer writes a container's layer as a tar and stages it, at the same time.
func (s *Store) stageContainer(ctx context.Context, o CommitOptions) (*layer.Staged, error) {
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pw.CloseWithError(s.layers.Diff(ctx, o.ContainerID, pw, archive.WriteOptions{Owner: o.Owner}))
	}()
	st, err := s.layers.Stage(ctx, pr, "")
	pr.CloseWithError(context.Canceled) // unblocks the writer after an error
	<-done
	return st, err
}

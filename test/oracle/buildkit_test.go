package oracle

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/diff/apply"
	ctdmetadata "github.com/containerd/containerd/v2/core/metadata"
	ctdsnapshot "github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/frontend"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/network"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
)

// startBuildKit serves a BuildKit of its own on a socket and gives a client of it.
func startBuildKit(t testing.TB) *client.Client {
	t.Helper()
	root := t.TempDir()
	removeCgroups(t)
	c, err := newController(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	server := grpc.NewServer(grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor), grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor))
	c.Register(server)
	l, err := net.Listen("unix", filepath.Join(root, "s"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return dial(t, l)
}

func dial(t testing.TB, l net.Listener) *client.Client {
	t.Helper()
	c, err := client.New(t.Context(), "unix://"+l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// quick: nothing has to survive the test.
var quick = &bolt.Options{NoSync: true}

// newController puts a daemon together as buildkitd does, with one worker.
func newController(root string) (*control.Controller, error) {
	sessions, err := session.NewManager()
	if err != nil {
		return nil, err
	}
	opt, err := workerOpt(root)
	if err != nil {
		return nil, err
	}
	w, err := base.NewWorker(context.Background(), opt)
	if err != nil {
		return nil, err
	}
	workers := &worker.Controller{}
	if err := workers.Add(w); err != nil {
		return nil, err
	}
	cache, err := bboltcachestorage.NewStore(filepath.Join(root, "cache.db"))
	if err != nil {
		return nil, err
	}
	history, err := bolt.Open(filepath.Join(root, "history.db"), 0o600, quick)
	if err != nil {
		return nil, err
	}
	language := forwarder.NewGatewayForwarder(workers.Infos(), dockerfile.Build)
	return control.NewController(control.Opt{
		SessionManager: sessions, WorkerController: workers,
		Frontends:    map[string]frontend.Frontend{"dockerfile.v0": language, "gateway.v0": language}, // for `# syntax=`, whose image would have the same in it
		CacheManager: solver.NewCacheManager(context.Background(), "local", cache, worker.NewCacheResultStorage(workers)),
		CacheStore:   cache, HistoryDB: history, LeaseManager: w.LeaseManager(), ContentStore: w.ContentStore(),
		Entitlements: []string{"network.host", "security.insecure"},
	})
}

func workerOpt(root string) (opt base.WorkerOpt, err error) {
	for _, dir := range []string{"executor", "snapshots", "mounts"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			return opt, err
		}
	}
	snapshots, err := overlay.NewSnapshotter(filepath.Join(root, "snapshots"))
	if err != nil {
		return opt, err
	}
	blobs, err := local.NewStore(filepath.Join(root, "content"))
	if err != nil {
		return opt, err
	}
	db, err := bolt.Open(filepath.Join(root, "containerd.db"), 0o600, quick)
	if err != nil {
		return opt, err
	}
	const name, namespace = "overlayfs", "buildkit"
	mdb := ctdmetadata.NewDB(db, blobs, map[string]ctdsnapshot.Snapshotter{name: snapshots})
	if err := mdb.Init(context.Background()); err != nil {
		return opt, err
	}
	store := containerd.NewContentStore(mdb.ContentStore(), namespace)
	records, err := metadata.NewStore(filepath.Join(root, "metadata.db"))
	if err != nil {
		return opt, err
	}
	host := network.NewHostProvider()
	return base.WorkerOpt{
		ID: "oracle", Root: root, Labels: map[string]string{}, Platforms: []ocispecs.Platform{platforms.Normalize(platforms.DefaultSpec())},
		NetworkProviders: map[pb.NetMode]network.Provider{pb.NetMode_UNSET: host, pb.NetMode_HOST: host, pb.NetMode_NONE: network.NewNoneProvider()},
		Executor:         &runner{root: filepath.Join(root, "executor")},
		Snapshotter:      containerd.NewSnapshotter(name, mdb.Snapshotter(name), namespace, nil), ContentStore: store,
		Applier: apply.NewFileSystemApplier(store), Differ: walking.NewWalkingDiff(store),
		LeaseManager: leaseutil.WithNamespace(ctdmetadata.NewLeaseManager(mdb), namespace), GarbageCollect: mdb.GarbageCollect,
		MetadataStore: records, MountPoolRoot: filepath.Join(root, "mounts"),
	}, nil
}

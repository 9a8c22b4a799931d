package csi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"berth/kernel/mount"
)

// host is a CSI driver whose volumes are directories. It is strict about the order of calls and keeps its knowledge in a file, so that it can
// be killed at any time. Files beside that one make it misbehave: hang-METHOD, fail-METHOD (holds a gRPC code; ends with the call).
type host struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	dir string
	mu  sync.Mutex
}

// memory is what it keeps.
type memory struct {
	Volumes   map[string]*vol  // by id
	Snapshots map[string]*snap // by id
	Calls     []string
}

type vol struct {
	Name, Attached, Staged, From string
	Size                         int64
	Targets                      map[string]bool
	Block                        bool
}

type snap struct{ Name, Volume string }

const hostVariable = "BERTH_TEST_CSI_HOST"

// serveHost is the driver's process.
func serveHost(dir string) {
	socket := filepath.Join(dir, "csi.sock")
	os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	h := &host{dir: dir}
	s := grpc.NewServer(grpc.UnaryInterceptor(h.intercept))
	csi.RegisterIdentityServer(s, h)
	csi.RegisterControllerServer(s, h)
	csi.RegisterNodeServer(s, h)
	s.Serve(l)
}

// process is a running driver.
type process struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

// startHost starts a driver in a process of its own and waits for its socket. dir is a short path: sockets' are.
func startHost(t *testing.T, dir string) *process {
	t.Helper()
	p := &process{t: t, dir: dir}
	p.start()
	t.Cleanup(p.kill)
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command("/proc/self/exe")
	p.cmd.Env = append(os.Environ(), hostVariable+"="+p.dir)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	for range 6000 {
		if c, err := net.Dial("unix", filepath.Join(p.dir, "csi.sock")); err == nil {
			c.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.t.Fatal("the CSI driver does not start")
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

func (p *process) memory() *memory {
	p.t.Helper()
	m, err := remember(p.dir)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// misbehave makes a method hang or fail; "" ends it.
func (p *process) misbehave(how, method, text string) {
	path := filepath.Join(p.dir, how+"-"+method)
	if text == "" {
		os.Remove(path)
		return
	}
	os.WriteFile(path, []byte(text), 0o600)
}

func remember(dir string) (*memory, error) {
	m := &memory{Volumes: map[string]*vol{}, Snapshots: map[string]*snap{}}
	b, err := os.ReadFile(filepath.Join(dir, "memory.json"))
	if os.IsNotExist(err) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	return m, json.Unmarshal(b, m)
}

func (h *host) intercept(ctx context.Context, q any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	method := info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]
	if _, err := os.Stat(filepath.Join(h.dir, "hang-"+method)); err == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	fail := filepath.Join(h.dir, "fail-"+method)
	b, failErr := os.ReadFile(fail)
	h.mu.Lock()
	defer h.mu.Unlock()
	a, err := next(ctx, q)
	if failErr == nil { // it does its work and loses the answer
		os.Remove(fail)
		var code codes.Code
		code.UnmarshalJSON(b)
		return nil, status.Error(code, "asked to fail")
	}
	return a, err
}

// change reads, changes and writes the memory.
func (h *host) change(call string, f func(m *memory) error) error {
	m, err := remember(h.dir)
	if err != nil {
		return err
	}
	m.Calls = append(m.Calls, call)
	ferr := f(m)
	b, _ := json.Marshal(m)
	if err := os.WriteFile(filepath.Join(h.dir, "memory.json.new"), b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(h.dir, "memory.json.new"), filepath.Join(h.dir, "memory.json")); err != nil {
		return err
	}
	return ferr
}

func (h *host) data(id string) string { return filepath.Join(h.dir, "data", id) }

func (h *host) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: "host.test", VendorVersion: "1"}, nil
}

func (h *host) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

func (h *host) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	a := &csi.GetPluginCapabilitiesResponse{}
	for _, t := range []csi.PluginCapability_Service_Type{csi.PluginCapability_Service_CONTROLLER_SERVICE, csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS} {
		a.Capabilities = append(a.Capabilities, &csi.PluginCapability{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: t}}})
	}
	return a, nil
}

func (h *host) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	a := &csi.ControllerGetCapabilitiesResponse{}
	types := []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT, csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER}
	if _, err := os.Stat(filepath.Join(h.dir, "no-clone")); err != nil {
		types = append(types, csi.ControllerServiceCapability_RPC_CLONE_VOLUME)
	}
	for _, t := range types {
		a.Capabilities = append(a.Capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}}})
	}
	return a, nil
}

func (h *host) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	a := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER} {
		a.Capabilities = append(a.Capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}}})
	}
	return a, nil
}

func (h *host) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "here", AccessibleTopology: &csi.Topology{Segments: map[string]string{"zone": "z1"}}}, nil
}

func (h *host) CreateVolume(_ context.Context, q *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if q.GetName() == "" || len(q.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "name and capabilities are needed")
	}
	if want := q.GetParameters()["secret"]; want != q.GetSecrets()["key"] {
		return nil, status.Error(codes.PermissionDenied, "wrong secret")
	}
	if size := q.GetCapacityRange().GetRequiredBytes(); size > 1<<40 {
		return nil, status.Error(codes.OutOfRange, "too large")
	}
	id := "id-" + q.GetName()
	size := max(q.GetCapacityRange().GetRequiredBytes(), 1<<20)
	err := h.change("CreateVolume", func(m *memory) error {
		if old := m.Volumes[id]; old != nil {
			if old.Size != size {
				return status.Error(codes.AlreadyExists, "another size")
			}
			return nil
		}
		from := ""
		if s := q.GetVolumeContentSource().GetSnapshot(); s != nil {
			if m.Snapshots[s.GetSnapshotId()] == nil {
				return status.Error(codes.NotFound, "no such snapshot")
			}
			from = s.GetSnapshotId()
		} else if v := q.GetVolumeContentSource().GetVolume(); v != nil {
			if m.Volumes[v.GetVolumeId()] == nil {
				return status.Error(codes.NotFound, "no such volume")
			}
			from = v.GetVolumeId()
		}
		m.Volumes[id] = &vol{Name: q.GetName(), Size: size, From: from, Targets: map[string]bool{}, Block: q.GetVolumeCapabilities()[0].GetBlock() != nil}
		return h.fill(id, from)
	})
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: id, CapacityBytes: size, VolumeContext: map[string]string{"kind": q.GetParameters()["kind"]},
		ContentSource: q.GetVolumeContentSource(), AccessibleTopology: q.GetAccessibilityRequirements().GetRequisite()}}, nil
}

func (h *host) fill(id, from string) error {
	if err := os.MkdirAll(h.data(id), 0o755); err != nil || from == "" {
		return err
	}
	return exec.Command("cp", "-a", h.data(from)+"/.", h.data(id)).Run()
}

func (h *host) DeleteVolume(_ context.Context, q *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if q.GetVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "id is needed")
	}
	return &csi.DeleteVolumeResponse{}, h.change("DeleteVolume", func(m *memory) error {
		if v := m.Volumes[q.GetVolumeId()]; v != nil && (v.Attached != "" || v.Staged != "" || len(v.Targets) > 0) {
			return status.Error(codes.FailedPrecondition, "volume is in use")
		}
		delete(m.Volumes, q.GetVolumeId())
		return os.RemoveAll(h.data(q.GetVolumeId()))
	})
}

func (h *host) ControllerPublishVolume(_ context.Context, q *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	if q.GetVolumeId() == "" || q.GetNodeId() == "" || q.GetVolumeCapability() == nil {
		return nil, status.Error(codes.InvalidArgument, "volume, node and capability are needed")
	}
	err := h.change("ControllerPublishVolume", func(m *memory) error {
		v := m.Volumes[q.GetVolumeId()]
		switch {
		case v == nil:
			return status.Error(codes.NotFound, "no such volume")
		case q.GetNodeId() != "here":
			return status.Error(codes.NotFound, "no such node")
		}
		v.Attached = "here"
		return nil
	})
	return &csi.ControllerPublishVolumeResponse{PublishContext: map[string]string{"device": "d1"}}, err
}

func (h *host) ControllerUnpublishVolume(_ context.Context, q *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	if q.GetVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "volume is needed")
	}
	return &csi.ControllerUnpublishVolumeResponse{}, h.change("ControllerUnpublishVolume", func(m *memory) error {
		if v := m.Volumes[q.GetVolumeId()]; v != nil {
			if v.Staged != "" {
				return status.Error(codes.FailedPrecondition, "still staged")
			}
			v.Attached = ""
		}
		return nil
	})
}

func (h *host) ValidateVolumeCapabilities(_ context.Context, q *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if q.GetVolumeId() == "" || len(q.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "volume and capabilities are needed")
	}
	a := &csi.ValidateVolumeCapabilitiesResponse{}
	return a, h.change("ValidateVolumeCapabilities", func(m *memory) error {
		v := m.Volumes[q.GetVolumeId()]
		if v == nil {
			return status.Error(codes.NotFound, "no such volume")
		}
		if v.Block == (q.GetVolumeCapabilities()[0].GetBlock() != nil) {
			a.Confirmed = &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: q.GetVolumeCapabilities()}
		} else {
			a.Message = "it is the other kind"
		}
		return nil
	})
}

func (h *host) CreateSnapshot(_ context.Context, q *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if q.GetName() == "" || q.GetSourceVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "name and volume are needed")
	}
	id := "snap-" + q.GetName()
	asked := 0
	err := h.change("CreateSnapshot", func(m *memory) error {
		for _, c := range m.Calls {
			if c == "CreateSnapshot" {
				asked++
			}
		}
		if old := m.Snapshots[id]; old != nil {
			if old.Volume != q.GetSourceVolumeId() {
				return status.Error(codes.AlreadyExists, "of another volume")
			}
			return nil
		}
		if m.Volumes[q.GetSourceVolumeId()] == nil {
			return status.Error(codes.NotFound, "no such volume")
		}
		m.Snapshots[id] = &snap{q.GetName(), q.GetSourceVolumeId()}
		return h.fill(id, q.GetSourceVolumeId())
	})
	return &csi.CreateSnapshotResponse{Snapshot: &csi.Snapshot{SnapshotId: id, SourceVolumeId: q.GetSourceVolumeId(), CreationTime: timestamppb.Now(), ReadyToUse: asked != 1}}, err
}

func (h *host) DeleteSnapshot(_ context.Context, q *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if q.GetSnapshotId() == "" {
		return nil, status.Error(codes.InvalidArgument, "snapshot is needed")
	}
	return &csi.DeleteSnapshotResponse{}, h.change("DeleteSnapshot", func(m *memory) error {
		delete(m.Snapshots, q.GetSnapshotId())
		return os.RemoveAll(h.data(q.GetSnapshotId()))
	})
}

func (h *host) ControllerExpandVolume(_ context.Context, q *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	if q.GetVolumeId() == "" || q.GetCapacityRange() == nil {
		return nil, status.Error(codes.InvalidArgument, "volume and size are needed")
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: q.GetCapacityRange().GetRequiredBytes(), NodeExpansionRequired: true}, h.change("ControllerExpandVolume", func(m *memory) error {
		v := m.Volumes[q.GetVolumeId()]
		if v == nil {
			return status.Error(codes.NotFound, "no such volume")
		}
		v.Size = q.GetCapacityRange().GetRequiredBytes()
		return nil
	})
}

func (h *host) NodeExpandVolume(_ context.Context, q *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	if q.GetVolumeId() == "" || q.GetVolumePath() == "" {
		return nil, status.Error(codes.InvalidArgument, "volume and path are needed")
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: q.GetCapacityRange().GetRequiredBytes()}, h.change("NodeExpandVolume", func(m *memory) error {
		v := m.Volumes[q.GetVolumeId()]
		if v == nil || !v.Targets[q.GetVolumePath()] && v.Staged != q.GetVolumePath() {
			return status.Error(codes.NotFound, "not published there")
		}
		return nil
	})
}

func (h *host) NodeStageVolume(_ context.Context, q *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if q.GetVolumeId() == "" || q.GetStagingTargetPath() == "" || q.GetVolumeCapability() == nil {
		return nil, status.Error(codes.InvalidArgument, "volume, path and capability are needed")
	}
	return &csi.NodeStageVolumeResponse{}, h.change("NodeStageVolume", func(m *memory) error {
		v := m.Volumes[q.GetVolumeId()]
		switch {
		case v == nil:
			return status.Error(codes.NotFound, "no such volume")
		case v.Attached != "here" || q.GetPublishContext()["device"] != "d1":
			return status.Error(codes.FailedPrecondition, "not attached")
		case v.Staged == q.GetStagingTargetPath() || v.Block:
			v.Staged = q.GetStagingTargetPath()
			return nil
		}
		v.Staged = q.GetStagingTargetPath()
		return bind(h.data(q.GetVolumeId()), v.Staged)
	})
}

func (h *host) NodeUnstageVolume(_ context.Context, q *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if q.GetVolumeId() == "" || q.GetStagingTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "volume and path are needed")
	}
	return &csi.NodeUnstageVolumeResponse{}, h.change("NodeUnstageVolume", func(m *memory) error {
		v := m.Volumes[q.GetVolumeId()]
		if v == nil {
			return status.Error(codes.NotFound, "no such volume")
		}
		if len(v.Targets) > 0 {
			return status.Error(codes.FailedPrecondition, "still published")
		}
		v.Staged = ""
		return mount.UnmountBelow(q.GetStagingTargetPath())
	})
}

func (h *host) NodePublishVolume(_ context.Context, q *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if q.GetVolumeId() == "" || q.GetTargetPath() == "" || q.GetVolumeCapability() == nil {
		return nil, status.Error(codes.InvalidArgument, "volume, path and capability are needed")
	}
	return &csi.NodePublishVolumeResponse{}, h.change("NodePublishVolume", func(m *memory) error {
		v := m.Volumes[q.GetVolumeId()]
		switch {
		case v == nil:
			return status.Error(codes.NotFound, "no such volume")
		case v.Staged == "" || v.Staged != q.GetStagingTargetPath():
			return status.Error(codes.FailedPrecondition, "not staged there")
		case v.Targets[q.GetTargetPath()]:
			return nil
		}
		v.Targets[q.GetTargetPath()] = true
		if _, err := os.Stat(filepath.Join(h.dir, "mounts-nothing")); err == nil {
			return os.Mkdir(q.GetTargetPath(), 0o755)
		}
		if v.Block {
			if err := os.WriteFile(q.GetTargetPath(), nil, 0o600); err != nil {
				return err
			}
			image := filepath.Join(h.data(q.GetVolumeId()), "disk")
			if err := os.WriteFile(image, []byte("the disk"), 0o600); err != nil {
				return err
			}
			return bind(image, q.GetTargetPath())
		}
		if err := os.MkdirAll(q.GetTargetPath(), 0o755); err != nil {
			return err
		}
		options := []string{"bind"}
		if q.GetReadonly() {
			options = append(options, "ro")
		}
		return bind(v.Staged, q.GetTargetPath(), options...)
	})
}

func (h *host) NodeUnpublishVolume(_ context.Context, q *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if q.GetVolumeId() == "" || q.GetTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "volume and path are needed")
	}
	return &csi.NodeUnpublishVolumeResponse{}, h.change("NodeUnpublishVolume", func(m *memory) error {
		v := m.Volumes[q.GetVolumeId()]
		if v == nil {
			return status.Error(codes.NotFound, "no such volume")
		}
		delete(v.Targets, q.GetTargetPath())
		if err := mount.UnmountBelow(q.GetTargetPath()); err != nil {
			return err
		}
		return os.RemoveAll(q.GetTargetPath())
	})
}

func bind(from, to string, options ...string) error {
	fd, err := mount.Make(mount.Mount{Source: from, Type: "bind", Options: append(options, "bind")})
	if err != nil {
		return err
	}
	return mount.Attach(fd, to)
}

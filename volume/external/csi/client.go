package csi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"berth/base/fault"
)

// client talks to one driver. It is safe for concurrent use.
type client struct {
	socket     string
	controller string // the socket of the controller service, often the same
	timeout    time.Duration
	conns      []*grpc.ClientConn
	id         csi.IdentityClient
	control    csi.ControllerClient
	node       csi.NodeClient

	mu    sync.Mutex // guards facts
	facts *facts     // nil until asked, and again after the driver was away: another one may have taken its place
}

// facts is what a driver says of itself.
type facts struct {
	name, version string
	hasController bool
	topology      bool // volumes are not reachable from everywhere
	create        bool
	attach        bool
	attachRO      bool
	snapshot      bool
	clone         bool
	expand        bool // by the controller
	stage         bool
	nodeExpand    bool
	manyWriters   bool
	nodeID        string
	segments      map[string]string // where this node is
}

// dial makes the connections to a driver; controller "" is the same socket. Nothing is said yet.
func dial(socket, controller string, timeout time.Duration) (*client, error) {
	if controller == "" {
		controller = socket
	}
	c := &client{socket: socket, controller: controller, timeout: timeout}
	node, err := c.connect(socket)
	if err != nil {
		return nil, err
	}
	control := node
	if controller != socket {
		if control, err = c.connect(controller); err != nil {
			c.close()
			return nil, err
		}
	}
	c.id, c.node, c.control = csi.NewIdentityClient(node), csi.NewNodeClient(node), csi.NewControllerClient(control)
	return c, nil
}

func (c *client) connect(socket string) (*grpc.ClientConn, error) {
	retry := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(time.Minute), grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: time.Second}))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "CSI driver at %s", socket)
	}
	c.conns = append(c.conns, conn)
	return conn, nil
}

func (c *client) close() {
	for _, conn := range c.conns {
		conn.Close()
	}
}

// call does one call of the driver, again and again while it is not there, busy with the same volume, or does not answer, until the timeout.
// All of CSI's calls may be repeated.
func call[Q, A any](ctx context.Context, c *client, name string, f func(context.Context, Q, ...grpc.CallOption) (A, error), q Q) (A, error) {
	whole, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	pause := 100 * time.Millisecond
	for {
		try, done := context.WithTimeout(whole, max(c.timeout/3, 10*time.Millisecond))
		a, err := f(try, q)
		done()
		if err == nil {
			return a, nil
		}
		if code := status.Code(err); code == codes.Unavailable || code == codes.DeadlineExceeded {
			c.forget()
		} else if code != codes.Aborted {
			return a, c.failed(ctx, name, err)
		}
		select {
		case <-whole.Done():
			return a, c.failed(ctx, name, err)
		case <-time.After(pause):
			pause = min(2*pause, 5*time.Second)
		}
	}
}

// kinds of gRPC codes, as the CSI specification uses them.
var kinds = map[codes.Code]fault.Kind{
	codes.InvalidArgument:    fault.Invalid,
	codes.OutOfRange:         fault.Invalid,
	codes.NotFound:           fault.NotFound,
	codes.AlreadyExists:      fault.Conflict,
	codes.FailedPrecondition: fault.Conflict,
	codes.Aborted:            fault.Unavailable,
	codes.Unavailable:        fault.Unavailable,
	codes.ResourceExhausted:  fault.Unavailable,
	codes.PermissionDenied:   fault.Forbidden,
	codes.Unauthenticated:    fault.Forbidden,
	codes.Unimplemented:      fault.NotImplemented,
	codes.DeadlineExceeded:   fault.Deadline,
	codes.Canceled:           fault.Cancelled,
}

// failed names the driver and the call, and says what happened in words.
func (c *client) failed(ctx context.Context, call string, err error) error {
	socket := c.controller
	if strings.HasPrefix(call, "Node") || strings.HasPrefix(call, "GetPlugin") || call == "Probe" {
		socket = c.socket
	}
	who := "CSI driver at " + socket
	c.mu.Lock()
	if c.facts != nil {
		who = fmt.Sprintf("CSI driver %s at %s", c.facts.name, socket)
	}
	c.mu.Unlock()
	code := status.Code(err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fault.Wrap(fault.Cancelled, ctx.Err(), "%s: %s", who, call)
	case code == codes.DeadlineExceeded:
		return &callError{code, fault.New(fault.Deadline, "%s: %s: no answer within %s", who, call, c.timeout)}
	}
	return &callError{code, fault.New(kinds[code], "%s: %s: %s", who, call, status.Convert(err).Message())}
}

// callError keeps the code: whether an answer was final is read from it.
type callError struct {
	code codes.Code
	error
}

func (e *callError) Unwrap() error { return e.error }

// final reports whether a failed call has certainly done nothing that is left.
func final(err error) bool {
	var e *callError
	if !errors.As(err, &e) {
		return false
	}
	switch e.code {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.ResourceExhausted,
		codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	}
	return false
}

func (c *client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.facts = nil
}

// ask gives what the driver says of itself, asked once as long as it is there.
func (c *client) ask(ctx context.Context) (*facts, error) {
	c.mu.Lock()
	known := c.facts
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	f := &facts{hasController: c.controller != c.socket}
	info, err := call(ctx, c, "GetPluginInfo", c.id.GetPluginInfo, &csi.GetPluginInfoRequest{})
	if err != nil {
		return nil, err
	}
	f.name, f.version = info.GetName(), info.GetVendorVersion()
	if err := c.probe(ctx); err != nil {
		return nil, err
	}
	plugin, err := call(ctx, c, "GetPluginCapabilities", c.id.GetPluginCapabilities, &csi.GetPluginCapabilitiesRequest{})
	if err != nil {
		return nil, err
	}
	for _, cap := range plugin.GetCapabilities() {
		switch cap.GetService().GetType() {
		case csi.PluginCapability_Service_CONTROLLER_SERVICE:
			f.hasController = true
		case csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS:
			f.topology = true
		}
	}
	if err := c.askNode(ctx, f); err != nil {
		return nil, err
	}
	if f.hasController {
		if err := c.askController(ctx, f); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	c.facts = f
	c.mu.Unlock()
	return f, nil
}

// probe waits until the driver says that it is ready; one that says nothing about it is.
func (c *client) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for {
		p, err := call(ctx, c, "Probe", c.id.Probe, &csi.ProbeRequest{})
		if err != nil {
			return err
		}
		if p.GetReady() == nil || p.GetReady().GetValue() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "CSI driver at %s says that it is not ready yet", c.socket)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (c *client) askNode(ctx context.Context, f *facts) error {
	caps, err := call(ctx, c, "NodeGetCapabilities", c.node.NodeGetCapabilities, &csi.NodeGetCapabilitiesRequest{})
	if fault.Is(err, fault.NotImplemented) {
		return fault.New(fault.Invalid, "CSI driver %s at %s has no node service: it is the controller's socket alone", f.name, c.socket)
	}
	if err != nil {
		return err
	}
	for _, cap := range caps.GetCapabilities() {
		switch cap.GetRpc().GetType() {
		case csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME:
			f.stage = true
		case csi.NodeServiceCapability_RPC_EXPAND_VOLUME:
			f.nodeExpand = true
		case csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER:
			f.manyWriters = true
		}
	}
	info, err := call(ctx, c, "NodeGetInfo", c.node.NodeGetInfo, &csi.NodeGetInfoRequest{})
	if err != nil && !fault.Is(err, fault.NotImplemented) {
		return err
	}
	f.nodeID, f.segments = info.GetNodeId(), maps.Clone(info.GetAccessibleTopology().GetSegments())
	return nil
}

func (c *client) askController(ctx context.Context, f *facts) error {
	caps, err := call(ctx, c, "ControllerGetCapabilities", c.control.ControllerGetCapabilities, &csi.ControllerGetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	has := func(t csi.ControllerServiceCapability_RPC_Type) bool {
		return slices.ContainsFunc(caps.GetCapabilities(), func(c *csi.ControllerServiceCapability) bool { return c.GetRpc().GetType() == t })
	}
	f.create = has(csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
	f.attach = has(csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME)
	f.attachRO = has(csi.ControllerServiceCapability_RPC_PUBLISH_READONLY)
	f.snapshot = has(csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT)
	f.clone = has(csi.ControllerServiceCapability_RPC_CLONE_VOLUME)
	f.expand = has(csi.ControllerServiceCapability_RPC_EXPAND_VOLUME)
	// A volume may only be used by many writers if the side that makes it agrees.
	f.manyWriters = f.manyWriters && has(csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER)
	return nil
}

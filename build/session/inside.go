package session

import (
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"strings"

	bksession "github.com/moby/buildkit/session"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"
)

// Attachable is a service that the client's side of a session serves.
type Attachable = bksession.Attachable

// Once begins the shared key of a session whose directories are seen once: nothing of them is kept for another session.
const Once = "once:"

// insideBuffer is what may be under way of a session within the process.
const insideBuffer = 1 << 20

// Local makes a session whose client is this process: what older doors got with the request is served as a client would. It ends with
// ctx or with end.
func (m *Manager) Local(ctx context.Context, sharedKey string, attach ...Attachable) (id string, end func(), err error) {
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connWindow),
		grpc.ForceServerCodecV2(insideCodec{encoding.GetCodecV2("proto")}), grpc.UnaryInterceptor(SurviveUnary), grpc.StreamInterceptor(SurviveStream))
	grpc_health_v1.RegisterHealthServer(server, grpchealth.NewServer())
	for _, a := range attach {
		a.Register(server)
	}
	id = strings.ToLower(rand.Text())
	h := http.Header{headerID: {id}, headerSharedKey: {sharedKey}, headerMethod: Methods(server)}
	c, err := m.admit(h)
	if err != nil {
		server.Stop()
		return "", nil, err
	}
	listener := bufconn.Listen(insideBuffer)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // ends with Stop
	}()
	conn, err := listener.DialContext(ctx)
	if err != nil {
		m.leave(c)
		server.Stop()
		<-served
		return "", nil, err
	}
	found, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		m.serveFound(ctx, c, conn, found)
	}()
	<-found
	return id, func() {
		c.end(nil)
		<-over
		server.Stop()
		<-served
	}, nil
}

// Methods lists the methods of a server as sessions announce them.
func Methods(server *grpc.Server) []string {
	var list []string
	for name, info := range server.GetServiceInfo() {
		for _, method := range info.Methods {
			list = append(list, "/"+name+"/"+method.Name)
		}
	}
	slices.Sort(list)
	return list
}

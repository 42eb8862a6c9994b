package taskrpc_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"gotong/grid"
	"gotong/grid/blake3"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/storage"
	"gotong/storage/storagetest"
	"gotong/tasks"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
)

// fakeRunner runs tasks by a function, as many at once as it has slots.
type fakeRunner struct {
	slots int
	why   string
	check error
	run   func(context.Context, tasks.Task) tasks.Result

	free     chan struct{}
	mu       sync.Mutex
	contents map[tasks.ContentID][]byte
	started  []tasks.Task
	running  int
	released int
}

func newRunner(slots int) *fakeRunner {
	return &fakeRunner{
		slots:    slots,
		free:     make(chan struct{}, max(1, slots)),
		contents: map[tasks.ContentID][]byte{},
		run: func(_ context.Context, t tasks.Task) tasks.Result {
			return tasks.Result{State: tasks.StateDone, Stdout: []byte(strings.Join(t.Spec.Args, " ")), Engine: "fake"}
		},
	}
}

func (r *fakeRunner) Slots() (int, string)                  { return r.slots, r.why }
func (r *fakeRunner) Check(taskrpc.Asker, tasks.Spec) error { return r.check }
func (r *fakeRunner) Engine(tasks.Runtime) string           { return "fake" }
func (r *fakeRunner) Release(tasks.TaskID)                  { r.mu.Lock(); defer r.mu.Unlock(); r.released++ }

func (r *fakeRunner) Do(ctx context.Context, w taskrpc.Work) (tasks.Result, error) {
	t := w.Task
	cancelled := tasks.Result{State: tasks.StateCancelled, ExitCode: tasks.NoExitCode}
	select {
	case r.free <- struct{}{}:
		defer func() { <-r.free }()
	case <-ctx.Done():
		return cancelled, nil
	}
	r.count(t, 1)
	defer r.count(t, -1)
	result := r.run(ctx, t)
	if ctx.Err() != nil {
		return cancelled, nil
	}
	return result, nil
}

func (r *fakeRunner) count(t tasks.Task, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running += n; n > 0 {
		r.started = append(r.started, t)
	}
}

func (r *fakeRunner) Missing(ids []tasks.ContentID) (missing []tasks.ContentID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if _, ok := r.contents[id]; !ok {
			missing = append(missing, id)
		}
	}
	return missing
}

func (r *fakeRunner) PutContent(_ context.Context, _ taskrpc.Asker, id tasks.ContentID, size int64, from io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(from, size+1))
	if err != nil {
		return err
	}
	if int64(len(data)) != size || blake3.Sum256(data) != id {
		return fmt.Errorf("%d bytes: %w", len(data), tasks.ErrContent)
	}
	r.add(data)
	return nil
}

// add stores a content.
func (r *fakeRunner) add(data []byte) tasks.ContentID {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := tasks.ContentID(blake3.Sum256(data))
	r.contents[id] = data
	return id
}

func (r *fakeRunner) OpenContent(id tasks.ContentID) (io.ReadCloser, int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	data, ok := r.contents[id]
	if !ok {
		return nil, 0, tasks.ErrNoContent
	}
	return io.NopCloser(bytes.NewReader(data)), int64(len(data)), nil
}

// servedWorker is a peer that serves tasks over an in-memory connection.
type servedWorker struct {
	service *taskrpc.Service
	peer    grid.PeerID
	server  *grpc.Server
	conns   *bufconn.Listener
}

const callerKey = "test-caller"

// grace is for how long tasks go on that their caller left.
const grace = 10 * time.Minute

// newWorker starts a worker; the caller's identity comes from dial.
func newWorker(t testing.TB, runner taskrpc.Runner) *servedWorker {
	t.Helper()
	public, key, _ := ed25519.GenerateKey(nil)
	w := &servedWorker{peer: grid.PeerIDOf(public), conns: bufconn.Listen(1 << 20)}
	w.service = taskrpc.NewService(taskrpc.Config{
		Runner:    runner,
		Key:       key,
		Grace:     grace,
		Authorize: func(g storage.SignedJobGrant) error { return g.Allows(submitter.Grid, time.Now()) },
		Caller: func(ctx context.Context) (grid.PeerID, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			if v := md.Get(callerKey); len(v) == 1 {
				return grid.PeerID{v[0][0]}, nil
			}
			return grid.PeerID{}, grid.ErrNotMember
		},
	})
	w.server = grpc.NewServer(grpc.MaxRecvMsgSize(taskrpc.MaxMessageBytes), grpc.MaxConcurrentStreams(100))
	tasksv1.RegisterTasksServer(w.server, w.service)
	go w.server.Serve(w.conns)
	t.Cleanup(func() {
		w.server.Stop()
		over, stop := context.WithCancel(context.Background())
		stop()
		w.service.Drain(over, "the test is over")
	})
	return w
}

// dial connects as the caller of this name; the empty name is a stranger.
func (w *servedWorker) dial(t testing.TB, name string) *grpc.ClientConn {
	t.Helper()
	identify := func(ctx context.Context) context.Context {
		if name == "" {
			return ctx
		}
		return metadata.AppendToOutgoingContext(ctx, callerKey, name)
	}
	conn, err := grpc.NewClient("passthrough:worker",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return w.conns.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return call(identify(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(identify(ctx), desc, cc, method, opts...)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (w *servedWorker) client(t testing.TB, name string) *taskrpc.Client {
	return taskrpc.NewClient(w.dial(t, name), w.peer)
}

// pool offers workers to the scheduler.
type pool map[grid.PeerID]scheduler.Worker

func (p pool) Candidates() (list []scheduler.Candidate) {
	for peer := range p {
		list = append(list, scheduler.Candidate{Peer: peer, Site: peer.Short()})
	}
	return list
}

func (p pool) Worker(peer grid.PeerID) (scheduler.Worker, error) { return p[peer], nil }

// header returns a job whose module the runner has.
func header(r *fakeRunner) scheduler.Header {
	return granted(scheduler.Header{Job: tasks.JobID{1}, Module: r.add([]byte("module")), Limits: tasks.DefaultLimits()})
}

// submitter is the owner of all jobs, with its device.
var submitter = storagetest.NewDevice("submitter")

// stranger is another member, who is no part in any job.
var stranger = storagetest.NewDevice("stranger")

// granted returns h with a grant for its job.
func granted(h scheduler.Header) scheduler.Header { return grantedBy(submitter, h) }

func grantedBy(owner storagetest.Device, h scheduler.Header) scheduler.Header {
	now := time.Now()
	raw, err := storage.SignJobGrant(owner.Key, storage.JobGrant{
		Job: h.Job, Owner: owner.Owner, Created: now, Expires: now.Add(365 * 24 * time.Hour), Delegation: owner.Grant,
	})
	if err != nil {
		panic(err)
	}
	h.Grant = raw
	return h
}

func order(h scheduler.Header, index int) scheduler.Order {
	return h.Order(index, scheduler.Part{Args: []string{fmt.Sprint(index)}})
}

// waits returns a run function that ends when the task is cancelled or after d.
func waits(d time.Duration) func(context.Context, tasks.Task) tasks.Result {
	return func(ctx context.Context, t tasks.Task) tasks.Result {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
		return tasks.Result{State: tasks.StateDone, Elapsed: d}
	}
}

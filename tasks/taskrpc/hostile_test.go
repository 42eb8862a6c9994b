package taskrpc_test

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"gotong/grid"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// liar is a worker that answers Work as a test says.
type liar struct {
	tasksv1.UnimplementedTasksServer
	key  ed25519.PrivateKey
	work func(stream grpc.BidiStreamingServer[tasksv1.WorkRequest, tasksv1.WorkResponse]) error
}

func (l *liar) Work(stream grpc.BidiStreamingServer[tasksv1.WorkRequest, tasksv1.WorkResponse]) error {
	return l.work(stream)
}

func (l *liar) grant(stream grpc.BidiStreamingServer[tasksv1.WorkRequest, tasksv1.WorkResponse]) (*tasksv1.WorkRequest, error) {
	if _, err := stream.Recv(); err != nil {
		return nil, err
	}
	public := l.key.Public().(ed25519.PublicKey)
	if err := stream.Send(&tasksv1.WorkResponse{Grant: &tasksv1.Grant{Slots: 1 << 31, Key: public}}); err != nil {
		return nil, err
	}
	return stream.Recv()
}

// claimFrom serves the liar and claims it.
func claimFrom(t *testing.T, l *liar, h scheduler.Header) (scheduler.Session, error) {
	t.Helper()
	if l.key == nil {
		_, l.key, _ = ed25519.GenerateKey(nil)
	}
	w := &servedWorker{
		peer:   grid.PeerIDOf(l.key.Public().(ed25519.PublicKey)),
		server: grpc.NewServer(), conns: bufconn.Listen(1 << 20),
	}
	tasksv1.RegisterTasksServer(w.server, l)
	go w.server.Serve(w.conns)
	t.Cleanup(w.server.Stop)
	return w.client(t, "a").Claim(t.Context(), h)
}

func TestLiesOfWorkersAreViolations(t *testing.T) {
	h := header(newRunner(1))
	seed := order(h, 3).Spec.Seed()
	good := func() *tasksv1.Result {
		return &tasksv1.Result{Job: h.Job[:], Index: 3, Seed: seed[:], State: tasksv1.State_STATE_DONE}
	}
	for name, spoil := range map[string]func(r *tasksv1.Result, m *tasksv1.WorkResponse){
		"other job":      func(r *tasksv1.Result, _ *tasksv1.WorkResponse) { r.Job = make([]byte, 32) },
		"other task":     func(r *tasksv1.Result, _ *tasksv1.WorkResponse) { r.Index = 4 },
		"other spec":     func(r *tasksv1.Result, _ *tasksv1.WorkResponse) { r.Seed = make([]byte, 32) },
		"no state":       func(r *tasksv1.Result, _ *tasksv1.WorkResponse) { r.State = 0 },
		"unknown limit":  func(r *tasksv1.Result, _ *tasksv1.WorkResponse) { r.Limit = 99 },
		"huge index":     func(r *tasksv1.Result, _ *tasksv1.WorkResponse) { r.Index = 1 << 63 },
		"climbing name":  func(r *tasksv1.Result, _ *tasksv1.WorkResponse) { r.Outputs = []*tasksv1.Output{{Name: "../x"}} },
		"nil output":     func(r *tasksv1.Result, _ *tasksv1.WorkResponse) { r.Outputs = []*tasksv1.Output{nil} },
		"no signature":   func(_ *tasksv1.Result, m *tasksv1.WorkResponse) { m.Signature = nil },
		"bad signature":  func(_ *tasksv1.Result, m *tasksv1.WorkResponse) { m.Signature = make([]byte, 64) },
		"not a result":   func(_ *tasksv1.Result, m *tasksv1.WorkResponse) { m.Results = [][]byte{{0xff}} },
		"second grant":   func(_ *tasksv1.Result, m *tasksv1.WorkResponse) { m.Grant = &tasksv1.Grant{} },
		"too many":       func(_ *tasksv1.Result, m *tasksv1.WorkResponse) { m.Results = make([][]byte, 300) },
		"returns stray":  func(_ *tasksv1.Result, m *tasksv1.WorkResponse) { m.Returned = []*tasksv1.Returned{{Index: 1 << 40}} },
		"nothing spoilt": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &liar{}
				l.work = func(stream grpc.BidiStreamingServer[tasksv1.WorkRequest, tasksv1.WorkResponse]) error {
					if _, err := l.grant(stream); err != nil {
						return err
					}
					r, m := good(), &tasksv1.WorkResponse{}
					sign := func() {
						raw, _ := proto.Marshal(r)
						m.Results = [][]byte{raw}
						m.Signature = scheduler.SignResults(l.key, m.Results).Signature
					}
					if sign(); spoil != nil {
						spoil(r, &tasksv1.WorkResponse{})
						sign()
						spoil(r, m)
					}
					if err := stream.Send(m); err != nil {
						return err
					}
					<-stream.Context().Done()
					return nil
				}
				s, err := claimFrom(t, l, h)
				if err != nil {
					t.Fatal(err)
				}
				s.Send(scheduler.Orders{Tasks: []scheduler.Order{order(h, 3)}})
				report, err := s.Recv()
				if spoil == nil {
					if err != nil || len(report.Results) != 1 {
						t.Errorf("honest worker: %+v, %v", report, err)
					}
					return
				}
				if !errors.Is(err, scheduler.ErrViolation) {
					t.Errorf("got %+v, %v", report, err)
				}
			})
		})
	}
}

func TestGrantMustBearThePeersKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other, _, _ := ed25519.GenerateKey(nil)
		for _, key := range [][]byte{nil, make([]byte, 32), other, make([]byte, 5)} {
			l := &liar{work: func(stream grpc.BidiStreamingServer[tasksv1.WorkRequest, tasksv1.WorkResponse]) error {
				if _, err := stream.Recv(); err != nil {
					return err
				}
				return stream.Send(&tasksv1.WorkResponse{Grant: &tasksv1.Grant{Slots: 1, Key: key}})
			}}
			if _, err := claimFrom(t, l, header(newRunner(1))); !errors.Is(err, scheduler.ErrViolation) {
				t.Errorf("key %x: %v", key, err)
			}
		}
	})
}

func TestTransferThatStandsStillIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(1)
		w := newWorker(t, r)
		h := header(r)
		stream, err := tasksv1.NewTasksClient(w.dial(t, "a")).PutContent(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&tasksv1.PutContentRequest{Grant: h.Grant, Content: h.Module[:], Size: 100, Data: []byte("half")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := stream.RecvMsg(&tasksv1.PutContentResponse{}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("transfer that stands still: %v", err)
		}
	})
}

func TestTransfersOfACallerAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(1)
		w := newWorker(t, r)
		h := header(r)
		conn := w.dial(t, "a")
		refused := 0
		for range 40 {
			stream, err := tasksv1.NewTasksClient(conn).PutContent(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			stream.Send(&tasksv1.PutContentRequest{Grant: h.Grant, Content: h.Module[:], Size: 100})
			go func() {
				if err := stream.RecvMsg(&tasksv1.PutContentResponse{}); status.Code(err) == codes.ResourceExhausted {
					refused++
				}
			}()
			synctest.Wait()
		}
		if refused < 10 || refused == 40 {
			t.Errorf("%d of 40 transfers refused", refused)
		}
	})
}

func TestClaimsOfACallerAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(1)
		w := newWorker(t, r)
		h, client := header(r), w.client(t, "a")
		var err error
		n := 0
		for ; n < 100 && err == nil; n++ {
			h.Job = tasks.JobID{byte(n + 1)}
			h = granted(h)
			_, err = client.Claim(t.Context(), h)
		}
		if !errors.Is(err, tasks.ErrBusy) || n > 50 {
			t.Errorf("after %d claims: %v", n, err)
		}
		if _, err := w.client(t, "b").Claim(t.Context(), h); err != nil {
			t.Errorf("another caller: %v", err)
		}
	})
}

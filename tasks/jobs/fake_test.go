package jobs

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/storage"
	"gotong/tasks"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
)

// fakePool is a set of fake workers.
type fakePool []*fakeWorker

func (p fakePool) Candidates() (out []scheduler.Candidate) {
	for _, w := range p {
		out = append(out, scheduler.Candidate{Peer: w.peer(), Site: w.peer().String()})
	}
	return out
}

func (p fakePool) Worker(peer grid.PeerID) (scheduler.Worker, error) {
	for _, w := range p {
		if w.peer() == peer {
			return w, nil
		}
	}
	return nil, grid.ErrUnknownPeer
}

// guest is what a fake task sees.
type guest struct {
	index int
	args  []string
	stdin string
	in    map[string]string
}

// fakeWorker runs tasks by a function and signs what it gives.
type fakeWorker struct {
	key   ed25519.PrivateKey
	slots int
	run   func(guest) tasks.Result // State, Stdout, Outputs
	dies  func(guest) bool         // with this task: its sessions break; nil: never

	store fakeContents // where it stores what it is asked to; nil: it stores nothing

	mu       sync.Mutex
	contents map[tasks.ContentID][]byte
	outputs  map[tasks.ContentID][]byte // that it stored nowhere
	ran      map[int]int
}

func newWorker(n byte, run func(guest) tasks.Result) *fakeWorker {
	return &fakeWorker{key: keyOf(n), slots: 2, run: run, contents: map[tasks.ContentID][]byte{}, outputs: map[tasks.ContentID][]byte{}, ran: map[int]int{}}
}

func (w *fakeWorker) peer() grid.PeerID { return peerOf(w.key) }

func (w *fakeWorker) missing(ids []tasks.ContentID) (out []tasks.ContentID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if _, ok := w.contents[id]; !ok {
			out = append(out, id)
		}
	}
	return out
}

func (w *fakeWorker) Offer(_ context.Context, h scheduler.Header) (scheduler.Offer, error) {
	return scheduler.Offer{Slots: w.slots, Free: w.slots, Missing: w.missing(h.Contents())}, nil
}

func (w *fakeWorker) PutContent(_ context.Context, _ scheduler.Header, id tasks.ContentID, size int64, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != size || blake3.Sum256(data) != id {
		return errors.Join(tasks.ErrContent, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.contents[id] = data
	return nil
}

func (w *fakeWorker) OpenOutput(_ context.Context, _ tasks.TaskID, id tasks.ContentID) (io.ReadCloser, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	data, ok := w.outputs[id]
	if !ok {
		return nil, tasks.ErrNoContent
	}
	return bytesReader(data), nil
}

func (w *fakeWorker) Claim(ctx context.Context, h scheduler.Header) (scheduler.Session, error) {
	ctx, done := context.WithCancel(ctx)
	s := &fakeSession{w: w, h: h, ctx: ctx, done: done, orders: make(chan scheduler.Order, 10000), reports: make(chan scheduler.Report, 10000)}
	for range w.slots {
		go s.slot()
	}
	go s.beat()
	return s, nil
}

type fakeSession struct {
	w       *fakeWorker
	h       scheduler.Header
	ctx     context.Context
	done    func()
	orders  chan scheduler.Order
	reports chan scheduler.Report
}

func (s *fakeSession) Slots() int { return s.w.slots }

func (s *fakeSession) Left() []int { return nil }

func (s *fakeSession) Done() { s.done() }

func (s *fakeSession) Send(o scheduler.Orders) error {
	for _, order := range o.Tasks {
		s.orders <- order
	}
	return s.ctx.Err()
}

func (s *fakeSession) Recv() (scheduler.Report, error) {
	select {
	case <-s.ctx.Done():
		return scheduler.Report{}, context.Cause(s.ctx)
	case r := <-s.reports:
		return r, nil
	}
}

func (s *fakeSession) beat() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(scheduler.HeartbeatEvery):
			s.reports <- scheduler.Report{}
		}
	}
}

func (s *fakeSession) slot() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case order := <-s.orders:
			if s.w.dies != nil && s.w.dies(guest{index: order.Index}) {
				s.done()
				return
			}
			s.reports <- scheduler.Report{Results: []scheduler.SignedResult{s.w.work(s.h, order)}}
		}
	}
}

// work runs one task and signs its result.
func (w *fakeWorker) work(h scheduler.Header, order scheduler.Order) scheduler.SignedResult {
	g := guest{index: order.Index, args: order.Spec.Args, in: map[string]string{}}
	w.mu.Lock()
	w.ran[order.Index]++
	for id := range order.Part.Stored {
		w.contents[id] = w.store[id]
	}
	g.stdin = string(w.contents[order.Spec.Stdin])
	for _, in := range order.Spec.Inputs {
		g.in[in.Name] = string(w.contents[in.Content])
	}
	w.mu.Unlock()
	r := w.run(g)
	if r.State == "" {
		r.State = tasks.StateDone
	}
	if r.State != tasks.StateDone && r.ExitCode == 0 {
		r.ExitCode = 1
	}
	for i := range r.Outputs {
		o := &r.Outputs[i]
		o.Size, o.Content = int64(len(o.Data)), blake3.Sum256(o.Data)
	}
	if len(r.Stdout) > tasks.InlineStdoutBytes {
		r.LargeStdout, r.Stdout = w.large(h, r.Stdout), nil
	}
	r.Task, r.Peer, r.Engine, r.Elapsed = tasks.TaskID{Job: h.Job, Index: order.Index}, w.peer(), "fake", time.Millisecond
	raw, err := taskrpc.EncodeResult(r, order.Spec.Seed())
	if err != nil {
		panic(err)
	}
	signed := scheduler.SignResults(w.key, [][]byte{raw})
	proofs, err := scheduler.OpenResults(signed.Key, signed.Signature, [][]byte{raw})
	if err != nil {
		panic(err)
	}
	return scheduler.SignedResult{Result: r, Proof: proofs[0]}
}

// large stores a standard output if it is asked to and can, else it keeps it.
func (w *fakeWorker) large(h scheduler.Header, text []byte) *tasks.Output {
	out := &tasks.Output{Size: int64(len(text)), Content: blake3.Sum256(text)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.store == nil || !h.StoreStdout {
		w.outputs[out.Content] = text
		return out
	}
	w.store[out.Content] = text
	out.Stored = &tasks.Stored{Size: out.Size, Segments: []storage.SegmentID{{1}}}
	return out
}

// fakeContents are contents by id.
type fakeContents map[tasks.ContentID][]byte

func (c fakeContents) Held(context.Context, Plan, tasks.Stored) error { return nil }

func (c fakeContents) Open(_ context.Context, _ Plan, id tasks.ContentID, _ tasks.Stored) (io.ReadCloser, error) {
	data, ok := c[id]
	if !ok {
		return nil, tasks.ErrNoContent
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

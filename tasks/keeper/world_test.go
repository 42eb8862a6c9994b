package keeper

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/tasks"
)

// world is a grid of keepers on a network that fails as it is told.
type world struct {
	t      testing.TB
	mu     sync.Mutex
	rand   *rand.Rand
	nodes  []*machine
	byID   map[grid.PeerID]*machine
	cut    map[[2]grid.PeerID]bool
	loss   float64 // of calls
	acked  map[int]bool
	tasks  int
	pace   time.Duration // of the tasks of a driver
	drove  map[grid.PeerID]int
	behind time.Duration // of the clocks of drivers
}

// machine is a peer of the world; its disk outlives its keeper.
type machine struct {
	w      *world
	name   string
	key    ed25519.PrivateKey
	id     grid.PeerID
	owner  grid.OwnerID
	disk   *memDisk
	copies *memDisk
	config func(*Config)

	mu     sync.Mutex
	keeper *Keeper
	power  *power
	stop   context.CancelFunc
	done   chan struct{}
}

// power is off once a machine was killed: nothing of that life reaches the disk.
type power struct {
	mu  sync.Mutex
	off bool
}

func (p *power) dead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.off
}

func newWorld(t testing.TB, seed uint64, owners ...int) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), byID: map[grid.PeerID]*machine{}, cut: map[[2]grid.PeerID]bool{},
		acked: map[int]bool{}, tasks: 40, pace: 300 * time.Millisecond, drove: map[grid.PeerID]int{}}
	for i, owner := range owners {
		hash := sha256.Sum256(fmt.Append(nil, "machine ", seed, i))
		m := &machine{w: w, name: fmt.Sprint("m", i), key: ed25519.NewKeyFromSeed(hash[:]), owner: grid.OwnerID{byte(owner + 1)}, disk: newMemDisk(), copies: newMemDisk()}
		m.id = grid.PeerIDOf(m.key.Public().(ed25519.PublicKey))
		w.nodes = append(w.nodes, m)
		w.byID[m.id] = m
	}
	return w
}

func (w *world) start() {
	for _, m := range w.nodes {
		m.start()
	}
}

func (w *world) stop() {
	for _, m := range w.nodes {
		m.kill()
	}
}

func (w *world) float() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.Float64()
}

func (w *world) pick(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.IntN(n)
}

func (m *machine) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keeper != nil {
		return
	}
	m.power = &power{}
	cfg := Config{
		Key: m.key, Owner: m.owner, Grid: grids{m.w}, Peers: func(id grid.PeerID) (Peer, error) { return wire{m, m.w.byID[id]}, nil },
		Store: &memStore{m.disk, m.power}, Book: book{}, Drive: m.drive, Lease: 2 * time.Second, Grace: 20 * time.Second,
		Logger: slog.New(slog.DiscardHandler),
	}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(m.w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("at", m.name)
	}
	if m.config != nil {
		m.config(&cfg)
	}
	k, err := New(cfg)
	if err != nil {
		m.w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	m.keeper, m.stop, m.done = k, stop, make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		if err := k.Run(ctx); err != nil {
			m.w.t.Error(err)
		}
	}(m.done)
}

// kill ends a machine as a power cut does.
func (m *machine) kill() {
	m.mu.Lock()
	k, p, stop, done := m.keeper, m.power, m.stop, m.done
	m.keeper = nil
	m.mu.Unlock()
	if k == nil {
		return
	}
	p.mu.Lock()
	p.off = true
	p.mu.Unlock()
	stop()
	<-done
}

func (m *machine) up() *Keeper {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keeper
}

// drive runs tasks of its own invention: each result names its task.
func (m *machine) drive(ctx context.Context, d Driven) error {
	m.w.mu.Lock()
	m.w.drove[m.id]++
	m.w.mu.Unlock()
	state := fold(m.w.t, d.Journal)
	for task := range m.w.tasks {
		if _, done := state.results[task]; done && !state.again(task) {
			continue
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Duration(m.w.float() * float64(m.w.pace))):
		}
		if err := d.Append([][]byte{encode(entry{Stream: d.Stream, At: time.Now(), Generation: d.Generation, Results: []int{task}})}); err != nil {
			return err
		}
		m.w.mu.Lock()
		m.w.acked[task] = true
		m.w.mu.Unlock()
	}
	return d.Append([][]byte{encode(entry{Stream: d.Stream, At: time.Now().Add(-m.w.behind), Generation: d.Generation, Ended: true})})
}

// entry is a record.
type entry struct {
	Stream     Stream
	At         time.Time
	Generation uint32
	Results    []int
	Ended      bool
	Cancelled  string
	Retried    bool
}

func encode(e entry) []byte {
	raw, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return raw
}

// folded is what records say together.
type folded struct {
	results   map[int]entry
	ended     map[uint32]bool
	cancelled map[uint32]bool
	highest   uint32
}

// again reports whether a task is to be run once more.
func (f folded) again(task int) bool { return f.results[task].Generation < f.highest && task%7 == 0 }

func fold(t testing.TB, j Journal) folded {
	f := folded{results: map[int]entry{}, ended: map[uint32]bool{}, cancelled: map[uint32]bool{}}
	err := j.Records(func(raw []byte) error {
		var e entry
		if err := json.Unmarshal(raw, &e); err != nil {
			return err
		}
		f.highest = max(f.highest, e.Generation)
		f.ended[e.Generation] = f.ended[e.Generation] || e.Ended
		f.cancelled[e.Generation] = f.cancelled[e.Generation] || e.Cancelled != ""
		for _, task := range e.Results {
			old, ok := f.results[task]
			if !ok || e.Generation > old.Generation || (e.Generation == old.Generation && e.Stream.compare(old.Stream) < 0) {
				f.results[task] = e
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return f
}

// book implements Book on entries and JSON plans.
type book struct{}

const domainTestPlan identity.Domain = "gotong test plan v1"

func (book) OpenPlan(raw []byte) (p Plan, err error) {
	signed, err := identity.ParseSigned(raw)
	if err == nil {
		err = signed.Verify(domainTestPlan)
	}
	if err == nil {
		err = json.Unmarshal(signed.Body, &p)
	}
	if err == nil && p.Submitter != grid.PeerIDOf(signed.Key) {
		err = ErrDenied
	}
	return p, err
}

func (book) Mark(raw []byte) (Mark, error) {
	var e entry
	err := json.Unmarshal(raw, &e)
	m := Mark{Stream: e.Stream, At: e.At, Generation: e.Generation, Ended: e.Ended || e.Cancelled != ""}
	if e.Cancelled != "" {
		m.ByOwner = KindCancel
	}
	if e.Retried {
		m.ByOwner = KindRetry
	}
	return m, err
}

func (book) Begun(s Stream, g uint32, at time.Time) ([]byte, error) {
	return encode(entry{Stream: s, Generation: g, At: at}), nil
}

func (book) Cancelled(s Stream, g uint32, at time.Time, why string) ([]byte, error) {
	return encode(entry{Stream: s, Generation: g, At: at, Cancelled: "because " + why}), nil
}

func (book) Expired(s Stream, g uint32, at time.Time) ([]byte, error) {
	return encode(entry{Stream: s, Generation: g, At: at, Ended: true}), nil
}

func (book) Retried(s Stream, g uint32, at time.Time, _ Journal) ([]byte, error) {
	return encode(entry{Stream: s, Generation: g, At: at, Retried: true}), nil
}

func (book) Summary(j Journal) ([]byte, error) {
	n := 0
	err := j.Records(func([]byte) error { n++; return nil })
	return fmt.Append(nil, n), err
}

// plan signs a plan of the machine's owner.
func (m *machine) plan(change func(*Plan)) (tasks.JobID, []byte) {
	var job tasks.JobID
	for i := range job {
		job[i] = byte(m.w.pick(256))
	}
	p := Plan{Job: job, Owner: m.owner, Submitter: m.id, Created: time.Now(), Expires: time.Now().Add(24 * time.Hour), Retention: time.Hour, Keepers: KeepersAny}
	if change != nil {
		change(&p)
	}
	body, err := json.Marshal(p)
	if err != nil {
		m.w.t.Fatal(err)
	}
	return p.Job, identity.Sign(m.key, domainTestPlan, body).Encode()
}

// memDisk is a disk with jobs.
type memDisk struct {
	mu   sync.Mutex
	jobs map[tasks.JobID]*memJob
}

type memJob struct {
	plan, note []byte
	records    [][]byte
	bytes      int64
}

func newMemDisk() *memDisk { return &memDisk{jobs: map[tasks.JobID]*memJob{}} }

// memStore is a disk as one life of a machine sees it.
type memStore struct {
	disk  *memDisk
	power *power
}

type memJournal struct {
	store *memStore
	job   *memJob
}

var errPower = errors.New("no power")

func (s *memStore) Create(job tasks.JobID, plan []byte) (Journal, error) {
	if s.power.dead() {
		return nil, errPower
	}
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.disk.jobs[job] == nil {
		s.disk.jobs[job] = &memJob{plan: plan}
	}
	return memJournal{s, s.disk.jobs[job]}, nil
}

func (s *memStore) Open(job tasks.JobID) (Journal, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.disk.jobs[job] == nil {
		return nil, ErrUnknownJob
	}
	return memJournal{s, s.disk.jobs[job]}, nil
}

func (s *memStore) Jobs() (out []tasks.JobID, err error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	for id := range s.disk.jobs {
		out = append(out, id)
	}
	slices.SortFunc(out, tasks.JobID.Compare)
	return out, nil
}

func (s *memStore) Remove(job tasks.JobID) error {
	if s.power.dead() {
		return errPower
	}
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	delete(s.disk.jobs, job)
	return nil
}

func (j memJournal) Plan() []byte { return j.job.plan }

func (j memJournal) Append(records [][]byte) error {
	time.Sleep(2 * time.Millisecond)
	if j.store.power.dead() {
		return errPower
	}
	j.store.disk.mu.Lock()
	defer j.store.disk.mu.Unlock()
	for _, r := range records {
		j.job.records = append(j.job.records, r)
		j.job.bytes += int64(len(r))
	}
	return nil
}

func (j memJournal) Records(f func([]byte) error) error {
	j.store.disk.mu.Lock()
	records := slices.Clone(j.job.records)
	j.store.disk.mu.Unlock()
	for _, r := range records {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func (j memJournal) Bytes() int64 {
	j.store.disk.mu.Lock()
	defer j.store.disk.mu.Unlock()
	return int64(len(j.job.plan)) + j.job.bytes
}

func (j memJournal) Note() ([]byte, error) {
	j.store.disk.mu.Lock()
	defer j.store.disk.mu.Unlock()
	return j.job.note, nil
}

func (j memJournal) SaveNote(note []byte) error {
	if j.store.power.dead() {
		return errPower
	}
	j.store.disk.mu.Lock()
	defer j.store.disk.mu.Unlock()
	j.job.note = note
	return nil
}

func (j memJournal) Close() error { return nil }

// grids implements Grid; everybody that runs is alive.
type grids struct{ w *world }

func (g grids) Alive() (out []Member) {
	for _, m := range g.w.nodes {
		if m.up() != nil {
			out = append(out, Member{m.id, m.owner, m.owner.String()})
		}
	}
	return out
}

func (g grids) Away() (out []grid.PeerID) {
	for _, m := range g.w.nodes {
		if m.up() == nil {
			out = append(out, m.id)
		}
	}
	return out
}

func (g grids) OwnerOf(peer grid.PeerID) (grid.OwnerID, bool) {
	m := g.w.byID[peer]
	if m == nil {
		return grid.OwnerID{}, false
	}
	return m.owner, true
}

func (g grids) EverOwnerOf(peer grid.PeerID) (grid.OwnerID, bool) { return g.OwnerOf(peer) }

func (g grids) Member(owner grid.OwnerID) bool {
	return slices.ContainsFunc(g.w.nodes, func(m *machine) bool { return m.owner == owner })
}

// wire carries calls between two machines.
type wire struct{ from, to *machine }

var errLost = errors.New("lost on the way")

// way takes a message to the other side, or loses it: then the caller waits for
// its deadline, or is told at once.
func (v wire) way(ctx context.Context) error {
	w := v.from.w
	delay := time.Duration(1+w.pick(30)) * time.Millisecond
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(delay):
	}
	w.mu.Lock()
	lost := w.cut[[2]grid.PeerID{v.from.id, v.to.id}] || w.rand.Float64() < w.loss
	silent := w.rand.IntN(2) == 0
	w.mu.Unlock()
	if !lost && v.from.up() != nil {
		return nil
	}
	if silent {
		<-ctx.Done()
	}
	return errLost
}

func call[T any](ctx context.Context, v wire, f func(*Keeper) (T, error)) (out T, err error) {
	if err := v.way(ctx); err != nil {
		return out, err
	}
	k := v.to.up()
	if k == nil {
		return out, errLost
	}
	out, err = f(k)
	if back := (wire{v.to, v.from}).way(ctx); back != nil {
		return out, back
	}
	return out, err
}

func (v wire) Put(ctx context.Context, r PutRequest) error {
	_, err := call(ctx, v, func(k *Keeper) (struct{}, error) { return struct{}{}, k.Put(ctx, v.from.id, r) })
	return err
}

func (v wire) Append(ctx context.Context, r AppendRequest) (AppendResponse, error) {
	return call(ctx, v, func(k *Keeper) (AppendResponse, error) { return k.Append(ctx, v.from.id, r) })
}

func (v wire) State(ctx context.Context, r StateRequest) (State, error) {
	return call(ctx, v, func(k *Keeper) (State, error) { return k.State(ctx, v.from.id, r) })
}

func (v wire) Read(ctx context.Context, r ReadRequest, receive func([]Batch) error) error {
	_, err := call(ctx, v, func(k *Keeper) (struct{}, error) {
		return struct{}{}, k.Read(ctx, v.from.id, r, func(b []Batch) error {
			if err := (wire{v.to, v.from}).way(ctx); err != nil {
				return err
			}
			return receive(b)
		})
	})
	return err
}

func (v wire) Plan(ctx context.Context, r StateRequest) ([]byte, error) {
	return call(ctx, v, func(k *Keeper) ([]byte, error) { return k.Plan(ctx, v.from.id, r) })
}

func (v wire) Jobs(ctx context.Context) ([]Listed, error) {
	return call(ctx, v, func(k *Keeper) ([]Listed, error) { return k.Jobs(ctx, v.from.id) })
}

func (v wire) Say(ctx context.Context, job tasks.JobID, statement []byte) error {
	_, err := call(ctx, v, func(k *Keeper) (struct{}, error) { return struct{}{}, k.Hear(ctx, v.from.id, job, statement) })
	return err
}

// submit submits a job and fails the test when nobody keeps it.
func (m *machine) submit(change func(*Plan)) tasks.JobID {
	m.w.t.Helper()
	job, raw := m.plan(change)
	s, err := m.up().Submit(context.Background(), raw)
	if err != nil {
		m.w.t.Fatal(err)
	}
	if len(s.Durable) == 0 {
		m.w.t.Fatal("nobody has it")
	}
	return job
}

// copiesOf returns the journals of a job on all disks.
func (w *world) copiesOf(job tasks.JobID) map[*machine]Journal {
	out := map[*machine]Journal{}
	for _, m := range w.nodes {
		if j, err := (&memStore{m.disk, &power{}}).Open(job); err == nil {
			out[m] = j
		}
	}
	return out
}

// wait returns when ok holds; the test fails when it does not for so long.
func (w *world) wait(what string, limit time.Duration, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not within %s: %s%s", limit, what, w.describe())
		}
	}
}

// describe says what every machine has.
func (w *world) describe() string {
	out := ""
	for _, m := range w.nodes {
		k := m.up()
		if k == nil {
			out += "\n" + m.name + " is off"
			continue
		}
		for _, j := range k.sorted() {
			j.mu.Lock()
			out += fmt.Sprintf("\n%s: %d records, lead %d %s, over %v, driving %v, heard %s ago, list %d of", m.name, j.have.Records(), j.lead.Epoch,
				w.byID[j.lead.Driver].name, j.over(), j.driving != nil, time.Since(j.heard), j.list.Number)
			for _, p := range j.list.Peers {
				out += " " + w.byID[p].name
			}
			j.mu.Unlock()
		}
	}
	return out
}

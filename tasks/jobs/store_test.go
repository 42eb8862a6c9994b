package jobs

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"syscall"

	"gotong/grid"
	"gotong/tasks"
)

func newJob(t testing.TB, p Plan) (*Store, *Job) {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "jobs"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	raw, err := SignPlan(keyOf(1), p)
	if err != nil {
		t.Fatal(err)
	}
	j, err := s.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	return s, j
}

func recordOf(results ...Result) *Record {
	return &Record{Epoch: 1, Driver: grid.PeerID{1}, At: time.Unix(5, 6).UTC(), Begun: true, Results: results}
}

func TestStoreComesBack(t *testing.T) {
	p := planOf(t, 10)
	s, j := newJob(t, p)
	var want []Result
	for i := range 10 {
		res := signedResults(t, p, keyOf(2), tasks.StateDone, "text", i)
		want = append(want, res...)
		if err := j.Append(recordOf(res...)); err != nil {
			t.Fatal(err)
		}
	}
	if again, err := s.Create(j.SignedPlan()); err != nil || again != j {
		t.Errorf("created again: %v", err)
	}
	check := func(j *Job) {
		t.Helper()
		for i := range 10 {
			r, ok, err := j.Result(i)
			if err != nil || !ok || !reflect.DeepEqual(r, want[i]) || r.Verify(p.Job) != nil {
				t.Errorf("result %d: %v %v %+v", i, ok, err, r)
			}
		}
	}
	check(j)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(recordOf()); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	again, err := Open(s.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if j, err = again.Job(p.Job); err != nil {
		t.Fatal(err)
	}
	check(j)
	other, copied := newJob(t, p)
	next := int64(0)
	if err := j.Read(0, func(raw []byte, after int64) error {
		next = after
		return copied.AppendEncoded(raw)
	}); err != nil || next != j.Length() {
		t.Fatal(err, next)
	}
	check(copied)
	if err := other.Remove(p.Job); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Job(p.Job); !errors.Is(err, ErrNoJob) {
		t.Errorf("removed: %v", err)
	}
	if entries, err := os.ReadDir(other.dir); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

// TestTornTail: a journal cut or altered at any byte opens, with every record
// before that place, and takes further ones.
func TestTornTail(t *testing.T) {
	p := planOf(t, 4)
	s, j := newJob(t, p)
	var ends []int64
	for i := range 4 {
		if err := j.Append(recordOf(signedResults(t, p, keyOf(2), tasks.StateDone, "", i)...)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, j.Length())
	}
	s.Close()
	path := filepath.Join(j.dir, journalName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := journalHeader; at < len(whole); at += 3 {
		for _, damage := range []func() []byte{
			func() []byte { return whole[:at] },
			func() []byte { b := bytes.Clone(whole); b[at] ^= 0x40; return b },
			func() []byte { return append(bytes.Clone(whole[:at]), make([]byte, 100)...) },
		} {
			data := damage()
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			s, err := Open(s.dir, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			j, err := s.Job(p.Job)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, end := range ends {
				if int64(at) >= end {
					n++
				}
			}
			j.View(func(st *State) {
				if got := st.Counts().Done; got != n {
					t.Fatalf("damage at %d: %d tasks, want %d", at, got, n)
				}
			})
			if torn := j.Length() != int64(len(data)); torn != bytes.Contains(log.Bytes(), []byte("cut off")) {
				t.Errorf("damage at %d: log %s", at, log.Bytes())
			}
			if err := j.Append(recordOf(signedResults(t, p, keyOf(2), tasks.StateDone, "", 3)...)); err != nil {
				t.Fatal(err)
			}
			if _, ok, err := j.Result(3); !ok || err != nil {
				t.Fatalf("damage at %d: %v %v", at, ok, err)
			}
			s.Close()
			for i := range maxCuts {
				os.Remove(filepath.Join(j.dir, "cut-"+string(rune('0'+i))))
			}
		}
	}
}

// faultyFile fails when it is told to.
type faultyFile struct {
	file
	write, sync, truncate error
	short                 int
}

func (f *faultyFile) WriteAt(b []byte, at int64) (int, error) {
	if f.write != nil {
		n, _ := f.file.WriteAt(b[:min(f.short, len(b))], at)
		return n, f.write
	}
	return f.file.WriteAt(b, at)
}

func (f *faultyFile) Sync() error {
	if f.sync != nil {
		return f.sync
	}
	return f.file.Sync()
}

func (f *faultyFile) Truncate(n int64) error {
	if f.truncate != nil {
		return f.truncate
	}
	return f.file.Truncate(n)
}

func TestFullDiskAndFailedSync(t *testing.T) {
	p := planOf(t, 3)
	_, j := newJob(t, p)
	f := &faultyFile{file: j.journal.file, write: syscall.ENOSPC, short: 20}
	j.journal.file = f
	one := func(i int) error {
		return j.Append(recordOf(signedResults(t, p, keyOf(2), tasks.StateDone, "", i)...))
	}
	done := func() (n int) {
		j.View(func(s *State) { n = s.Counts().Done })
		return n
	}
	if err := one(0); !errors.Is(err, syscall.ENOSPC) || done() != 0 {
		t.Fatalf("full disk: %v, %d done", err, done())
	}
	f.write = nil
	if err := one(0); err != nil || done() != 1 {
		t.Fatalf("room again: %v, %d done", err, done())
	}
	f.sync = syscall.EIO
	if err := one(1); !errors.Is(err, syscall.EIO) || done() != 1 {
		t.Fatalf("failed sync: %v, %d done", err, done())
	}
	f.sync = nil
	if err := one(1); !errors.Is(err, ErrBroken) || done() != 1 {
		t.Fatalf("after a failed sync: %v, %d done", err, done())
	}
}

// TestOpenedJournalIsDurable: a process that was killed between writing and syncing
// leaves records that a power cut may still take; they count once they are synced.
func TestOpenedJournalIsDurable(t *testing.T) {
	p := planOf(t, 3)
	raw, err := recordOf(signedResults(t, p, keyOf(2), tasks.StateDone, "", 0)...).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, torn := range []int{0, 5} { // bytes of another record
		mem := &memFile{data: appendEntry(journalHead(p.Job), raw)}
		mem.data = append(mem.data, make([]byte, torn)...)
		_, cut, err := openJournal(mem, p.Job, int64(len(mem.data)), nil, func(*Record, int64) error { return nil })
		if err != nil || cut != int64(torn) || mem.synced != len(mem.data) {
			t.Errorf("%d bytes cut, %d of %d synced, %v", cut, mem.synced, len(mem.data), err)
		}
		f := &faultyFile{file: mem, sync: syscall.EIO}
		if _, _, err := openJournal(f, p.Job, int64(len(mem.data)), nil, func(*Record, int64) error { return nil }); !errors.Is(err, syscall.EIO) {
			t.Errorf("opened though it could not be synced: %v", err)
		}
	}
}

func TestFailedCutBreaks(t *testing.T) {
	p := planOf(t, 3)
	_, j := newJob(t, p)
	f := &faultyFile{file: j.journal.file, write: syscall.ENOSPC, truncate: syscall.EIO, short: 20}
	j.journal.file = f
	res := signedResults(t, p, keyOf(2), tasks.StateDone, "", 0)
	if err := j.Append(recordOf(res...)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	f.write, f.truncate = nil, nil
	if err := j.Append(recordOf(res...)); !errors.Is(err, ErrBroken) {
		t.Fatal(err)
	}
}

func TestRecordComesBack(t *testing.T) {
	p := planOf(t, 300)
	var all []int
	for i := range 256 {
		all = append(all, i)
	}
	whole := signedResults(t, p, keyOf(2), tasks.StateDone, "out", all...)
	part := signedResults(t, p, keyOf(3), tasks.StateFailed, "", 5, 6, 7)[1:2]
	vote := signedResults(t, p, keyOf(4), tasks.StateDone, "out", 9)
	vote[0].Site = "home"
	whole[9].Votes, whole[9].Checked = vote, true
	r := &Record{Epoch: 3, Driver: grid.PeerID{4}, At: time.Unix(9, 8).UTC(), Generation: 2, Begun: true,
		Results: append(whole, part...), Evidence: signedResults(t, p, keyOf(5), tasks.StateDone, "lie", 9),
		Trust: []Trust{{grid.PeerID{6}, 4}}, Tried: []Tried{{7, 2}}, Lost: []Tried{{8, 3}}, Retried: []Range{{1, 2}}, Cancelled: &Cancelled{"enough"}, Ended: &Ended{true, "why"}}
	raw, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRecord(raw)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Fatalf("%v:\n%+v\nwant\n%+v", err, got, r)
	}
	for _, res := range append(got.Results, got.Evidence...) {
		if err := res.Verify(p.Job); err != nil {
			t.Fatal(err)
		}
		res.Raw = append(bytes.Clone(res.Raw), 0)
		if err := res.Verify(p.Job); err == nil {
			t.Fatal("an altered result verifies")
		}
	}
	t.Logf("%d bytes for a result of %d", len(raw)/256, len(whole[0].Raw))
}

func FuzzParseRecord(f *testing.F) {
	p := planOf(f, 9)
	r := recordOf(signedResults(f, p, keyOf(2), tasks.StateDone, "", 1, 2, 3)...)
	r.Evidence, r.Ended = signedResults(f, p, keyOf(3), tasks.StateDone, "", 4, 5)[:1], &Ended{}
	r.Tried, r.Lost = []Tried{{8, 1}}, []Tried{{7, 2}}
	raw, err := r.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParseRecord(raw)
		if err != nil {
			return
		}
		for _, res := range append(r.Results, r.Evidence...) {
			_ = res.Verify(p.Job)
		}
		_ = NewState(p).Apply(r, 0)
		again, err := r.Encode()
		if err != nil {
			return // it was short because it was odd
		}
		if _, err := ParseRecord(again); err != nil {
			t.Fatalf("encoded again: %v", err)
		}
	})
}

func FuzzJournal(f *testing.F) {
	p := planOf(f, 9)
	raw, err := recordOf(signedResults(f, p, keyOf(2), tasks.StateDone, "", 1)...).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(appendEntry(appendEntry(nil, raw), raw))
	f.Fuzz(func(t *testing.T, data []byte) {
		mem := &memFile{data: append(journalHead(p.Job), data...)}
		j, cut, err := openJournal(mem, p.Job, int64(len(mem.data)), nil, func(r *Record, _ int64) error { return nil })
		if err != nil || j.size+cut != int64(journalHeader+len(data)) || int64(len(mem.data)) != j.size {
			t.Fatalf("%d of %d bytes, %d cut: %v", j.size, len(mem.data), cut, err)
		}
	})
}

type memFile struct {
	data   []byte
	synced int // bytes
}

func (m *memFile) ReadAt(b []byte, at int64) (int, error) {
	return bytes.NewReader(m.data).ReadAt(b, at)
}
func (m *memFile) WriteAt(b []byte, at int64) (int, error) {
	m.data = append(m.data[:at], b...)
	return len(b), nil
}
func (m *memFile) Truncate(n int64) error { m.data = m.data[:n]; return nil }
func (m *memFile) Sync() error            { m.synced = len(m.data); return nil }
func (m *memFile) Close() error           { return nil }

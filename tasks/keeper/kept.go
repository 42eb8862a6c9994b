package keeper

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"gotong/grid"
)

// kept is one job that is kept here.
type kept struct {
	k       *Keeper
	plan    Plan
	raw     []byte
	journal Journal
	logger  interface {
		Info(msg string, args ...any)
		Debug(msg string, args ...any)
		Warn(msg string, args ...any)
	}

	writing gate // one writer of the journal at a time; taken before mu

	mu         sync.Mutex
	have       Vector
	lead       Stream // that beats all others that began
	list       List
	said       said
	generation uint32
	endedGen   int64 // the highest generation that has ended; -1: none
	endedAt    time.Time
	byOwner    map[Kind]uint32 // the highest generation of which records say so
	heard      time.Time       // when lead was heard last, directly or by what others say
	driving    *drive          // nil: follows
	changed    chan struct{}   // closed and replaced when something did
	tail       []tailed        // newest records of the stream that is driven
	tailBytes  int
	gone       bool
	catching   bool                      // fetches what another keeper told of
	copied     bool                      // a copy for reading: it takes nothing of the keeper's bounds
	failures   int                       // to drive it, in a row; look's own
	silent     map[grid.PeerID]time.Time // keepers of a job that is over, since when; look's own
	recruitAt  time.Time                 // a keeper of a job that is over is not looked for before; look's own
	size       int64                     // of what it takes of the keeper's bound; guarded by Keeper.mu
}

// gate is a lock that is held while the disk works.
type gate chan struct{}

func (g gate) Lock()   { g <- struct{}{} }
func (g gate) Unlock() { <-g }

// tailed is a record in memory.
type tailed struct {
	place uint64
	raw   []byte
}

// open reads what the disk has of a job.
func (k *Keeper) open(journal Journal) (*kept, error) {
	plan, err := k.cfg.Book.OpenPlan(journal.Plan())
	if err != nil {
		return nil, err
	}
	j := &kept{
		k: k, plan: plan, raw: journal.Plan(), journal: journal, logger: k.cfg.Logger.With("job", plan.Job.Short()),
		have: Vector{}, endedGen: -1, byOwner: map[Kind]uint32{}, changed: make(chan struct{}), heard: time.Now(), writing: make(gate, 1),
	}
	err = journal.Records(func(raw []byte) error {
		mark, err := k.cfg.Book.Mark(raw)
		if err != nil {
			return err
		}
		j.note(mark)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("journal of job %s: %w", plan.Job.Short(), err)
	}
	note, err := journal.Note()
	if err != nil {
		return nil, fmt.Errorf("keepers of job %s: %w", plan.Job.Short(), err)
	}
	return j, j.readNote(note)
}

// note takes a record that is durable into the counts.
func (j *kept) note(m Mark) {
	j.have[m.Stream]++
	if m.Stream.Beats(j.lead) {
		j.lead = m.Stream
	}
	j.generation = max(j.generation, m.Generation)
	if m.Ended && int64(m.Generation) >= j.endedGen {
		j.endedGen = int64(m.Generation)
		if m.At.After(j.endedAt) {
			j.endedAt = m.At
		}
	}
	if m.ByOwner != 0 {
		j.byOwner[m.ByOwner] = max(j.byOwner[m.ByOwner], m.Generation)
	}
}

// over reports whether the job has ended and its owner wants nothing more.
// Holds mu.
func (j *kept) over() bool {
	if j.endedGen < int64(j.generation) {
		return false
	}
	_, retry := j.said.find(KindRetry, func(s Statement) bool { return s.Generation == j.generation+1 })
	return !retry
}

// fire wakes those that wait for a change. Holds mu.
func (j *kept) fire() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// watch returns a channel that is closed at the next change.
func (j *kept) watch() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.changed
}

// take appends the records of batches that are not here yet. It returns errGap
// when records before them are missing.
func (j *kept) take(batches []Batch) error {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	next := maps.Clone(j.have)
	lead := j.lead
	j.mu.Unlock()
	var fresh [][]byte
	var marks []Mark
	for _, b := range batches {
		if b.Stream.Epoch > lead.Epoch+maxEpochJump || b.Stream.Driver.IsZero() || b.Stream.Epoch == 0 {
			return fmt.Errorf("%w: epoch %d", ErrInvalid, b.Stream.Epoch)
		}
		if b.First > next[b.Stream] {
			return errGap
		}
		for i, raw := range b.Records {
			if b.First+uint64(i) < next[b.Stream] {
				continue
			}
			mark, err := j.check(b.Stream, raw)
			if err != nil {
				return err
			}
			fresh, marks = append(fresh, raw), append(marks, mark)
			next[b.Stream]++
		}
	}
	if len(next) > maxStreams {
		return fmt.Errorf("%w: more than %d epochs", ErrInvalid, maxStreams)
	}
	return j.write(fresh, marks)
}

// check reads a record of another driver. A record that claims to be what the
// owner wanted counts only beside the owner's statement.
func (j *kept) check(s Stream, raw []byte) (Mark, error) {
	if len(raw) > MaxRecordBytes {
		return Mark{}, fmt.Errorf("%w: record of %d bytes", ErrInvalid, len(raw))
	}
	mark, err := j.k.cfg.Book.Mark(raw)
	if err != nil {
		return Mark{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if mark.Stream != s {
		return Mark{}, fmt.Errorf("%w: record of another driver", ErrInvalid)
	}
	if mark.ByOwner == 0 {
		return mark, nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.said.find(mark.ByOwner, func(s Statement) bool { return s.Generation == mark.Generation }); !ok {
		return Mark{}, fmt.Errorf("%w: the owner did not say so", ErrDenied)
	}
	return mark, nil
}

// write makes records durable, then counts them. Holds writing.
func (j *kept) write(records [][]byte, marks []Mark) error {
	if len(records) == 0 {
		return nil
	}
	size := int64(0)
	for _, raw := range records {
		size += int64(len(raw))
	}
	if !j.copied && !j.k.room(j, size) {
		return fmt.Errorf("%w: what it keeps of jobs is full (tasks.keep_bytes)", ErrRefused)
	}
	if err := j.journal.Append(records); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, m := range marks {
		j.note(m)
	}
	j.fire()
	return nil
}

// own appends records of the stream that is driven here and keeps them in
// memory for those that follow.
func (j *kept) own(s Stream, records [][]byte) error {
	j.writing.Lock()
	defer j.writing.Unlock()
	marks := make([]Mark, len(records))
	for i, raw := range records {
		mark, err := j.k.cfg.Book.Mark(raw)
		if err != nil {
			return err
		}
		if mark.Stream != s || len(raw) > MaxRecordBytes {
			return fmt.Errorf("%w: own record of %d bytes in another epoch", ErrInvalid, len(raw))
		}
		marks[i] = mark
	}
	j.mu.Lock()
	first := j.have[s]
	for i, raw := range records {
		j.tail = append(j.tail, tailed{first + uint64(i), raw})
		j.tailBytes += len(raw)
	}
	for len(j.tail) > 0 && j.tailBytes > tailBytes {
		j.tailBytes -= len(j.tail[0].raw)
		j.tail[0].raw = nil
		j.tail = j.tail[1:]
	}
	j.mu.Unlock()
	err := j.write(records, marks)
	if err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		for n := len(j.tail) - 1; n >= 0 && j.tail[n].place >= first; n-- {
			j.tailBytes -= len(j.tail[n].raw)
			j.tail = j.tail[:n]
		}
	}
	return err
}

// newest returns what is not in have of the stream that is driven here, as much
// as fits one message, if nothing else is missing and memory has it; else nil.
// upto is what the journal has.
func (j *kept) newest(have Vector, own Stream) (batches []Batch, upto Vector) {
	j.mu.Lock()
	defer j.mu.Unlock()
	upto = maps.Clone(j.have)
	for s, count := range upto {
		if s != own && have[s] < count {
			return nil, upto
		}
	}
	if len(j.tail) == 0 || have[own] < j.tail[0].place {
		return nil, upto
	}
	var b batcher
	for _, t := range j.tail[min(have[own]-j.tail[0].place, uint64(len(j.tail))):] {
		if t.place >= upto[own] || b.full(len(t.raw)) { // not durable here yet, or enough
			break
		}
		b.add(own, t.place, t.raw)
	}
	return b.take(), upto
}

// read calls f with the records beyond have, up to the counts of upto.
func (j *kept) read(have, upto Vector, f func([]Batch) error) error {
	place := Vector{}
	var b batcher
	err := j.journal.Records(func(raw []byte) error {
		mark, err := j.k.cfg.Book.Mark(raw)
		if err != nil {
			return err
		}
		at := place[mark.Stream]
		place[mark.Stream]++
		if at < have[mark.Stream] || at >= upto[mark.Stream] {
			return nil
		}
		if b.full(len(raw)) {
			if err := f(b.take()); err != nil {
				return err
			}
		}
		b.add(mark.Stream, at, raw)
		return nil
	})
	if err == nil && b.bytes > 0 {
		err = f(b.take())
	}
	return err
}

// learn takes in a newer list of keepers and statements of the owner. Those
// that do not hold are left out.
func (j *kept) learn(l List, statements [][]byte) error {
	j.mu.Lock()
	news, over := false, j.over()
	if l.newer(j.list) && validList(l) && (l.By.Epoch <= j.lead.Epoch+maxEpochJump) {
		j.list = List{l.By, l.Number, slices.Clone(l.Peers)}
		news = true
	}
	for _, raw := range statements[:min(len(statements), statementsMax)] {
		s, err := j.openStatement(raw)
		if err == nil && j.said.add(slices.Clone(raw), s) {
			news = true
		}
	}
	if over && !j.over() && j.driving == nil { // it begins anew: there is no driver of whom to hear
		j.heard = time.Time{}
	}
	j.mu.Unlock()
	if !news {
		return nil
	}
	err := j.saveNote()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fire()
	return err
}

func validList(l List) bool {
	return len(l.Peers) > 0 && len(l.Peers) <= maxKeepers && !slices.ContainsFunc(l.Peers, grid.PeerID.IsZero)
}

// openStatement verifies that a device of the owner said it of this job.
func (j *kept) openStatement(raw []byte) (Statement, error) {
	s, err := OpenStatement(raw)
	if err != nil {
		return s, err
	}
	owner, ok := j.k.cfg.Grid.OwnerOf(s.Signer)
	if s.Job != j.plan.Job || !ok || owner != j.plan.Owner {
		return s, fmt.Errorf("%w: statement by a peer of another owner, or on another job", ErrDenied)
	}
	return s, nil
}

// removed returns the owner's wish to forget the job. Holds mu.
func (j *kept) removed() bool {
	_, yes := j.said.find(KindRemove, func(Statement) bool { return true })
	return yes
}

// mayForget returns when the job is to be removed here. Holds mu.
func (j *kept) mayForget() time.Time {
	if j.removed() {
		return time.Time{}
	}
	return j.plan.KeptUntil(j.over(), j.endedAt, j.k.cfg.Retention)
}

// wait returns when something changed, the time is come or ctx ended.
func (j *kept) wait(ctx context.Context, until time.Time, changed <-chan struct{}) {
	timer := time.NewTimer(max(0, time.Until(until)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-changed:
	}
}

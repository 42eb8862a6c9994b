package jobs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"gotong/grid/blake3"
	"gotong/grid/disk"
	"gotong/tasks"
)

// Job is a job that is kept here. Methods are safe for concurrent use.
type Job struct {
	dir string
	raw []byte // the signed plan

	mu      sync.Mutex
	journal *journal
	state   *State
	changed chan struct{} // closed and replaced by every append
	closed  bool
	last    *Record // read last by Result
	lastAt  int64

	accepted func(*Job, Result) // see Store.Watch; nil: nobody
}

// ID returns the job's id.
func (j *Job) ID() tasks.JobID { return j.state.plan.Job }

// Plan returns the plan.
func (j *Job) Plan() Plan { return j.state.plan }

// SignedPlan returns the plan as it was signed. It is not to be changed.
func (j *Job) SignedPlan() []byte { return j.raw }

// Append makes records durable and takes them in. It returns once they are on
// the disk, all or none.
func (j *Job) Append(records ...*Record) error {
	raws := make([][]byte, len(records))
	for i, r := range records {
		raw, err := r.Encode()
		if err != nil {
			return fmt.Errorf("journal of job %s: %w", j.ID().Short(), err)
		}
		raws[i] = raw
	}
	return j.append(raws, records)
}

// AppendEncoded is Append for records as Record.Encode returns them, from
// another peer's journal.
func (j *Job) AppendEncoded(raws ...[]byte) error {
	records := make([]*Record, len(raws))
	for i, raw := range raws {
		r, err := ParseRecord(raw)
		if err != nil {
			return fmt.Errorf("journal of job %s: %w", j.ID().Short(), err)
		}
		records[i] = r
	}
	return j.append(raws, records)
}

func (j *Job) append(raws [][]byte, records []*Record) error {
	first, told, err := j.takeIn(raws, records)
	for _, r := range first {
		told(j, r)
	}
	return err
}

// takeIn makes records durable. It returns those of their results that are the
// first of their tasks, and who is told of them.
func (j *Job) takeIn(raws [][]byte, records []*Record) (first []Result, told func(*Job, Result), err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, nil, fmt.Errorf("job %s: %w", j.ID().Short(), ErrClosed)
	}
	for _, r := range records {
		if err := j.state.check(r); err != nil {
			return nil, nil, fmt.Errorf("journal of job %s: %w", j.ID().Short(), err)
		}
	}
	places, err := j.journal.append(raws)
	if err != nil {
		return nil, nil, fmt.Errorf("journal of job %s: %w", j.ID().Short(), err)
	}
	for i, r := range records {
		for _, res := range r.Results {
			if _, have := j.state.Accepted(res.Index); j.accepted != nil && !have {
				first = append(first, res)
			}
		}
		j.state.apply(r, places[i])
	}
	close(j.changed)
	j.changed = make(chan struct{})
	return first, j.accepted, nil
}

func (j *Job) watch(f func(*Job, Result)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.accepted = f
}

// Read calls f with each encoded record from a place on, and with the place
// after it, in the order in which they came. The place of the first record is
// 0. It ends at what was durable when it began, or with f's error.
func (j *Job) Read(from int64, f func(raw []byte, next int64) error) error {
	j.mu.Lock()
	journal, end := j.journal, j.journal.size
	j.mu.Unlock()
	return journal.read(from, end, f)
}

// Length returns the place after the last record.
func (j *Job) Length() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.journal.size
}

// Changed returns a channel that is closed when records come after this call.
func (j *Job) Changed() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.changed
}

// View calls f with the state, which may not be kept or changed.
func (j *Job) View(f func(*State)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(j.state)
}

// Result returns the result of a task that counts; false when there is none
// yet.
func (j *Job) Result(index int) (Result, bool, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if index < 0 || index >= len(j.state.tasks) {
		return Result{}, false, invalid("task %d of %d", index, len(j.state.tasks))
	}
	place, ok := j.state.Place(index)
	if !ok {
		return Result{}, false, nil
	}
	if place == knownPlace {
		r, ok := j.state.plan.knownResult(index)
		return r, ok, nil
	}
	if j.last == nil || j.lastAt != place {
		r, err := j.journal.at(place)
		if err != nil {
			return Result{}, false, err
		}
		j.last, j.lastAt = r, place
	}
	hash := j.state.tasks[index].hash
	for _, r := range j.last.Results {
		if r.Index == index && r.hashOf() == hash {
			return r, true, nil
		}
	}
	return Result{}, false, fmt.Errorf("%w: result of task %d is not where it should be", ErrDamaged, index)
}

// ContentPath returns where a copy of a content lies, if there is one.
func (j *Job) ContentPath(id tasks.ContentID) string {
	return filepath.Join(j.dir, contentsName, id.String())
}

// KeepContent copies a content into the job's directory, durably. Its hash is
// checked.
func (j *Job) KeepContent(id tasks.ContentID, from io.Reader) error {
	path := j.ContentPath(id)
	dir := filepath.Dir(path)
	if _, err := os.Stat(path); err == nil {
		return disk.SyncDir(dir) // who made it may have been killed before this
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, newContent)
	if err != nil {
		return err
	}
	hash := blake3.New()
	_, err = io.Copy(io.MultiWriter(f, hash), from)
	if err == nil && hash.Sum256() != id {
		err = tasks.ErrContent
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return errors.Join(disk.SyncDir(dir), disk.SyncDir(j.dir))
}

func (j *Job) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	close(j.changed)
	j.changed = make(chan struct{})
	return j.journal.file.Close()
}

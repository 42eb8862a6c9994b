package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"gotong/grid/disk"
	"gotong/tasks"
	"gotong/tasks/jobs"
)

// JobBook is the Book of package tasks/jobs.
type JobBook struct{}

var _ Book = JobBook{}

// OpenPlan implements Book.
func (JobBook) OpenPlan(raw []byte) (Plan, error) {
	p, err := jobs.OpenPlan(raw)
	if err != nil {
		return Plan{}, err
	}
	return PlanOf(p), nil
}

// PlanOf returns what a keeper needs to know of a plan.
func PlanOf(p jobs.Plan) Plan {
	return Plan{
		Job: p.Job, Owner: p.Owner, Submitter: p.Submitter, Created: p.Created, Expires: p.Expires,
		Retention: p.Retention, Keepers: Policy(p.Keepers),
	}
}

// The fields of a record that a keeper reads. Results, which are most of it,
// are passed over.
const (
	fieldEpoch      = 1
	fieldDriver     = 2
	fieldAt         = 3
	fieldGeneration = 4
	fieldCancelled  = 11
	fieldRetried    = 12
	fieldEnded      = 13
)

// Mark implements Book.
func (JobBook) Mark(raw []byte) (m Mark, err error) {
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return m, fmt.Errorf("%w: record", ErrInvalid)
		}
		raw = raw[n:]
		value := raw
		if n = protowire.ConsumeFieldValue(number, kind, raw); n < 0 {
			return m, fmt.Errorf("%w: record", ErrInvalid)
		}
		raw = raw[n:]
		if err := m.field(number, kind, value[:n]); err != nil {
			return m, err
		}
	}
	return m, nil
}

// field takes in one field of a record.
func (m *Mark) field(number protowire.Number, kind protowire.Type, value []byte) error {
	wrong := func(want protowire.Type) bool { return kind != want }
	switch number {
	case fieldEpoch, fieldAt, fieldGeneration:
		if wrong(protowire.VarintType) {
			return fmt.Errorf("%w: record", ErrInvalid)
		}
		n, _ := protowire.ConsumeVarint(value)
		m.number(number, n)
	case fieldDriver:
		if wrong(protowire.BytesType) {
			return fmt.Errorf("%w: record", ErrInvalid)
		}
		raw, _ := protowire.ConsumeBytes(value)
		driver, err := peerFromBytes(raw)
		m.Stream.Driver = driver
		return err
	case fieldCancelled:
		m.Ended, m.ByOwner = true, KindCancel
	case fieldRetried:
		m.ByOwner = KindRetry
	case fieldEnded:
		m.Ended = true
	}
	return nil
}

func (m *Mark) number(number protowire.Number, n uint64) {
	switch number {
	case fieldEpoch:
		m.Stream.Epoch = n
	case fieldAt:
		m.At = time.Unix(0, int64(n)).UTC()
	case fieldGeneration:
		m.Generation = uint32(n)
	}
}

func record(s Stream, generation uint32, at time.Time) *jobs.Record {
	return &jobs.Record{Epoch: s.Epoch, Driver: s.Driver, At: at.UTC(), Generation: generation}
}

// Begun implements Book.
func (JobBook) Begun(s Stream, generation uint32, at time.Time) ([]byte, error) {
	r := record(s, generation, at)
	r.Begun = true
	return r.Encode()
}

// Cancelled implements Book.
func (JobBook) Cancelled(s Stream, generation uint32, at time.Time, why string) ([]byte, error) {
	r := record(s, generation, at)
	r.Cancelled = &jobs.Cancelled{Why: why}
	return r.Encode()
}

// Expired implements Book.
func (JobBook) Expired(s Stream, generation uint32, at time.Time) ([]byte, error) {
	r := record(s, generation, at)
	r.Ended = &jobs.Ended{Why: "its time was over before its tasks were"}
	return r.Encode()
}

// Retried implements Book.
func (JobBook) Retried(s Stream, generation uint32, at time.Time, j Journal) ([]byte, error) {
	kept, ok := j.(*JobJournal)
	if !ok {
		return nil, errors.New("not a journal of package jobs")
	}
	r := record(s, generation, at)
	kept.Job.View(func(state *jobs.State) { r.Retried = state.Failures() })
	return r.Encode()
}

// Summary implements Book.
func (JobBook) Summary(j Journal) ([]byte, error) {
	kept, ok := j.(*JobJournal)
	if !ok {
		return nil, errors.New("not a journal of package jobs")
	}
	return Summarise(kept.Job).encode()
}

// JobStore is a directory of package tasks/jobs with the keepers' notes beside
// the journals.
type JobStore struct {
	Store *jobs.Store
	Dir   string // of Store
}

var _ Store = (*JobStore)(nil)

// noteName is the file with a keeper's note, in the directory of the job.
const noteName = "keepers"

// JobJournal is a job of a JobStore.
type JobJournal struct {
	Job  *jobs.Job
	note string
}

func (s *JobStore) journal(job *jobs.Job) Journal {
	return &JobJournal{job, filepath.Join(s.Dir, job.ID().String(), noteName)}
}

// Create implements Store.
func (s *JobStore) Create(_ tasks.JobID, plan []byte) (Journal, error) {
	job, err := s.Store.Create(plan)
	if err != nil {
		return nil, err
	}
	return s.journal(job), nil
}

// Open implements Store.
func (s *JobStore) Open(id tasks.JobID) (Journal, error) {
	job, err := s.Store.Job(id)
	if errors.Is(err, jobs.ErrNoJob) {
		return nil, fmt.Errorf("%w: %w", ErrUnknownJob, err)
	}
	if err != nil {
		return nil, err
	}
	return s.journal(job), nil
}

// Jobs implements Store.
func (s *JobStore) Jobs() ([]tasks.JobID, error) {
	var out []tasks.JobID
	for _, job := range s.Store.List() {
		out = append(out, job.ID())
	}
	return out, nil
}

// Remove implements Store.
func (s *JobStore) Remove(id tasks.JobID) error { return s.Store.Remove(id) }

// Plan implements Journal.
func (j *JobJournal) Plan() []byte { return j.Job.SignedPlan() }

// Append implements Journal.
func (j *JobJournal) Append(records [][]byte) error { return j.Job.AppendEncoded(records...) }

// Records implements Journal.
func (j *JobJournal) Records(f func(raw []byte) error) error {
	return j.Job.Read(0, func(raw []byte, _ int64) error { return f(raw) })
}

// Bytes implements Journal.
func (j *JobJournal) Bytes() int64 { return int64(len(j.Job.SignedPlan())) + j.Job.Length() }

// Note implements Journal.
func (j *JobJournal) Note() ([]byte, error) {
	raw, err := disk.ReadFile(j.note, int64(noteHead+maxNoteBytes))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(raw) < noteHead || string(raw[:len(noteMagic)]) != noteMagic ||
		binary.BigEndian.Uint32(raw[len(noteMagic):]) != noteSum(raw[noteHead:]) {
		return nil, fmt.Errorf("%w: %s", jobs.ErrDamaged, j.note)
	}
	return raw[noteHead:], nil
}

// SaveNote implements Journal.
func (j *JobJournal) SaveNote(note []byte) error {
	raw := binary.BigEndian.AppendUint32([]byte(noteMagic), noteSum(note))
	return disk.WriteFile(j.note, append(raw, note...), 0o600)
}

// Close implements Journal; the store closes its jobs itself.
func (*JobJournal) Close() error { return nil }

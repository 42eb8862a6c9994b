package jobs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"gotong/grid/disk"
	"gotong/tasks"
)

// Store keeps jobs in a directory, one below it for each:
//
//	JOB/plan      the signed plan
//	JOB/journal   what became of the job
//	JOB/cut-N     what was cut off a damaged journal, for whoever wants to look
//	JOB/contents/ copies of contents, by id
//	JOB.new       a job that is being made; removed by the next Open
//
// JOB is the id in hex. Methods are safe for concurrent use; no other process
// may use the directory.
type Store struct {
	dir    string
	logger *slog.Logger

	mu       sync.Mutex
	jobs     map[tasks.JobID]*Job
	accepted func(*Job, Result)
}

const (
	planName     = "plan"
	journalName  = "journal"
	contentsName = "contents"
	newContent   = ".new.*.tmp" // one that is being copied; disk.RemoveAllTemps knows it
	newSuffix    = ".new"
	// maxCuts is how many cut tails of a journal are kept.
	maxCuts = 8
)

// Errors of a store. Test with errors.Is.
var (
	// ErrNoJob: the job is not kept here.
	ErrNoJob = errors.New("no such job here")
	// ErrExists: another plan is kept under the job's id.
	ErrExists = errors.New("another job has this id")
	// ErrClosed: the job was removed, or the store closed.
	ErrClosed = errors.New("job closed")
)

// Open opens every job in dir, which is made when it is missing. A job that
// cannot be read is left where it is, with a warning. Close ends it.
func Open(dir string, logger *slog.Logger) (*Store, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory for jobs: %w", err)
	}
	s := &Store{dir: dir, logger: logger, jobs: map[tasks.JobID]*Job{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		id, err := tasks.ParseJobID(e.Name())
		if err != nil {
			if filepath.Ext(e.Name()) == newSuffix {
				if err := os.RemoveAll(path); err != nil {
					return nil, err
				}
			}
			continue
		}
		job, err := s.open(id, path)
		if err != nil {
			logger.Warn("a job cannot be read; its directory is left as it is", "job", id, "dir", path, "err", err)
			continue
		}
		s.jobs[id] = job
	}
	return s, nil
}

// Watch has f called with every result that comes for a task that has none. It is
// called once the result is durable, by whoever appended it.
func (s *Store) Watch(f func(*Job, Result)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted = f
	for _, job := range s.jobs {
		job.watch(f)
	}
}

// Close closes every job.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for id, job := range s.jobs {
		errs = append(errs, job.close())
		delete(s.jobs, id)
	}
	return errors.Join(errs...)
}

// Create keeps a job, durably. A job that is kept already is returned as it is.
func (s *Store) Create(raw []byte) (*Job, error) { return s.CreateWith(raw, nil) }

// CreateWith is Create with contents of the job, which are moved from the files
// that are named; these lie on the same file system and are durable or are made
// so.
func (s *Store) CreateWith(raw []byte, files map[tasks.ContentID]string) (*Job, error) {
	plan, err := OpenPlan(raw)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if job := s.jobs[plan.Job]; job != nil {
		if !bytes.Equal(job.raw, raw) {
			return nil, ErrExists
		}
		return job, nil
	}
	path := filepath.Join(s.dir, plan.Job.String())
	if err := s.make(path, plan.Job, raw, files); err != nil {
		return nil, fmt.Errorf("keep job %s: %w", plan.Job.Short(), err)
	}
	job, err := s.open(plan.Job, path)
	if err != nil {
		return nil, err
	}
	job.watch(s.accepted)
	s.jobs[plan.Job] = job
	return job, nil
}

// make writes the files of a new job; they appear in one rename.
func (s *Store) make(path string, id tasks.JobID, raw []byte, files map[tasks.ContentID]string) error {
	fresh := path + newSuffix
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	err := disk.WriteFile(filepath.Join(fresh, planName), raw, 0o600)
	if err == nil {
		err = disk.WriteFile(filepath.Join(fresh, journalName), journalHead(id), 0o600)
	}
	if err == nil && len(files) > 0 {
		err = moveContents(filepath.Join(fresh, contentsName), files)
	}
	if err == nil {
		err = disk.SyncDir(fresh)
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	return disk.SyncDir(s.dir)
}

// moveContents moves files into a new directory, durably.
func moveContents(dir string, files map[tasks.ContentID]string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for id, from := range files {
		f, err := os.OpenFile(from, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
		if err := os.Rename(from, filepath.Join(dir, id.String())); err != nil {
			return err
		}
	}
	return disk.SyncDir(dir)
}

func (s *Store) open(id tasks.JobID, path string) (*Job, error) {
	// What a process that was killed did not finish.
	if err := errors.Join(disk.RemoveAllTemps(path), disk.RemoveAllTemps(filepath.Join(path, contentsName))); err != nil {
		return nil, err
	}
	raw, err := disk.ReadFile(filepath.Join(path, planName), MaxPlanBytes)
	if err != nil {
		return nil, err
	}
	plan, err := OpenPlan(raw)
	if err != nil {
		return nil, err
	}
	if plan.Job != id {
		return nil, fmt.Errorf("%w: plan of job %s", ErrDamaged, plan.Job.Short())
	}
	f, err := os.OpenFile(filepath.Join(path, journalName), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	job := &Job{dir: path, raw: raw, state: NewState(plan), changed: make(chan struct{})}
	keep := func(r io.Reader) error { return keepCut(path, r) }
	journal, cut, err := openJournal(f, id, info.Size(), keep, func(r *Record, place int64) error {
		if err := job.state.Apply(r, place); err != nil {
			s.logger.Warn("a record of a job is passed over", "job", id, "err", err)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal of job %s: %w", id.Short(), err), f.Close())
	}
	if cut > 0 {
		s.logger.Warn("the end of a job's journal could not be read and was cut off; the tasks of which it told run again",
			"job", id, "bytes", cut, "kept_in", path)
	}
	job.journal = journal
	return job, nil
}

// keepCut sets aside what is cut off a journal.
func keepCut(dir string, r io.Reader) error {
	for n := range maxCuts {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("cut-%d", n)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}
	return nil // enough of them lie there
}

// Job returns a job.
func (s *Store) Job(id tasks.JobID) (*Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if job := s.jobs[id]; job != nil {
		return job, nil
	}
	return nil, fmt.Errorf("job %s: %w", id.Short(), ErrNoJob)
}

// List returns all jobs, the oldest first.
func (s *Store) List() []*Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*Job, 0, len(s.jobs))
	for _, job := range s.jobs {
		list = append(list, job)
	}
	slices.SortFunc(list, func(a, b *Job) int {
		if c := a.state.plan.Created.Compare(b.state.plan.Created); c != 0 {
			return c
		}
		return a.ID().Compare(b.ID())
	})
	return list
}

// Remove closes a job and deletes everything of it.
func (s *Store) Remove(id tasks.JobID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	job := s.jobs[id]
	if job == nil {
		return fmt.Errorf("job %s: %w", id.Short(), ErrNoJob)
	}
	delete(s.jobs, id)
	gone := job.dir + newSuffix
	return errors.Join(job.close(), os.Rename(job.dir, gone), os.RemoveAll(gone), disk.SyncDir(s.dir))
}

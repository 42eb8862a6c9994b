package node

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"gotong/grid"
	"gotong/grid/peernet"
	"gotong/grid/roster"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks"
	"gotong/tasks/contents"
	"gotong/tasks/jobs"
	"gotong/tasks/keeper"
)

// keeping is the part of a peer that keeps jobs, its user's and others'.
type keeping struct {
	peer     *Peer
	store    *jobs.Store // kept here
	copies   *jobs.Store // read from keepers elsewhere, for this peer's user
	keeper   *keeper.Keeper
	contents *contents.Contents
	driveDir string        // files of jobs that are driven, for as long as they are
	retain   time.Duration // how long jobs are kept here that do not say
}

// openKeeper opens the jobs that are kept here.
func (p *Peer) openKeeper() (err error) {
	s := p.home.state()
	k := &keeping{peer: p, contents: contents.New(p.segments), driveDir: p.work.submitDir, retain: p.cfg().Tasks.Retention}
	if k.store, err = jobs.Open(s.jobs(), p.logger); err != nil {
		return err
	}
	p.onClose(k.store.Close)
	if k.copies, err = jobs.Open(s.jobCopies(), p.logger); err != nil {
		return err
	}
	p.onClose(k.copies.Close)
	k.store.Watch(func(job *jobs.Job, r jobs.Result) { k.bookOnce(k.copies, job, r) })
	k.copies.Watch(func(job *jobs.Job, r jobs.Result) { k.bookOnce(k.store, job, r) })
	cfg := p.cfg().Tasks
	kept := cfg.KeepJobs
	if kept == 0 {
		kept = -1
	}
	k.keeper, err = keeper.New(keeper.Config{
		Key: p.node.Private(), Owner: p.owner(), Grid: gridKeepers{p}, Peers: k.dial,
		Store: &keeper.JobStore{Store: k.store, Dir: s.jobs()}, Book: keeper.JobBook{}, Drive: k.drive,
		Lease: cfg.KeeperLease, Grace: cfg.KeeperGrace, Retention: cfg.Retention, Jobs: kept, Bytes: int64(cfg.KeepBytes), Logger: p.logger,
	})
	if err != nil {
		return err
	}
	p.onClose(k.keeper.Close)
	p.keeping = k
	return nil
}

func (k *keeping) register(services *peernet.Services) {
	tasksv1.RegisterKeepersServer(services, keeper.NewService(k.keeper, caller))
}

// Keeper returns the part of the peer that keeps jobs.
func (p *Peer) Keeper() *keeper.Keeper { return p.keeping.keeper }

// FetchJob returns a job of this peer's owner with all records that any keeper
// which answers has. keeper.ErrUnknownJob: none of those keeps it.
func (p *Peer) FetchJob(ctx context.Context, id tasks.JobID) (*jobs.Job, keeper.Copy, error) {
	into := &keeper.JobStore{Store: p.keeping.copies, Dir: p.home.state().jobCopies()}
	found, err := p.keeping.keeper.Fetch(ctx, id, into)
	if err != nil {
		return nil, found, err
	}
	journal, ok := found.Journal.(*keeper.JobJournal)
	if !ok {
		return nil, found, fmt.Errorf("job %s: journal of another kind", id.Short())
	}
	return journal.Job, found, nil
}

func (k *keeping) dial(id grid.PeerID) (keeper.Peer, error) {
	conn, err := k.peer.clients.Conn(id)
	if err != nil {
		return nil, err
	}
	return keeper.NewClient(conn), nil
}

// drive drives a kept job to its end.
func (k *keeping) drive(ctx context.Context, d keeper.Driven) error {
	journal, ok := d.Journal.(*keeper.JobJournal)
	if !ok {
		return fmt.Errorf("job %s: journal of another kind", d.Job.Short())
	}
	cfg := jobs.DriveConfig{
		Job: journal.Job, Self: d.Stream.Driver, Epoch: d.Stream.Epoch, Append: d.Append,
		Pool:     k.peer.stepPool,
		Contents: keptContents{k.contents}, Dir: k.driveDir, Logger: k.peer.logger,
	}
	if journal.Job.Plan().Owner == k.peer.owner() {
		cfg.Remember, cfg.Key = k.peer.remember, k.peer.node.Private()
	}
	return jobs.Drive(ctx, cfg)
}

// keptContents opens contents of kept jobs.
type keptContents struct{ contents *contents.Contents }

// Open implements jobs.Contents.
func (c keptContents) Open(ctx context.Context, p jobs.Plan, id tasks.ContentID, stored tasks.Stored) (io.ReadCloser, error) {
	return c.contents.Open(ctx, contents.Job{ID: p.Job, Key: p.Key, Grant: p.Grant}, id, stored)
}

// Held implements jobs.Contents.
func (c keptContents) Held(ctx context.Context, p jobs.Plan, stored tasks.Stored) error {
	return c.contents.Held(ctx, contents.Job{ID: p.Job, Key: p.Key, Grant: p.Grant}, stored)
}

// gridKeepers tells the keeper who is there.
type gridKeepers struct{ peer *Peer }

// Alive implements keeper.Grid.
func (g gridKeepers) Alive() (out []keeper.Member) {
	for _, p := range g.peer.membership.Peers() {
		if p.State == grid.StateAlive {
			out = append(out, keeper.Member{Peer: p.ID, Owner: p.Owner, Site: p.Site()})
		}
	}
	return out
}

// Away implements keeper.Grid.
func (g gridKeepers) Away() (out []grid.PeerID) {
	for _, p := range g.peer.membership.Peers() {
		if p.State != grid.StateAlive {
			out = append(out, p.ID)
		}
	}
	return out
}

// OwnerOf implements keeper.Grid.
func (g gridKeepers) OwnerOf(peer grid.PeerID) (grid.OwnerID, bool) {
	m, ok := g.peer.roster.View().Member(peer)
	return m.Owner, ok
}

// EverOwnerOf implements keeper.Grid.
func (g gridKeepers) EverOwnerOf(peer grid.PeerID) (grid.OwnerID, bool) {
	return g.peer.roster.View().OwnerOf(peer)
}

// Member implements keeper.Grid.
func (g gridKeepers) Member(owner grid.OwnerID) bool {
	return g.peer.roster.View().OwnerStatus(owner) == roster.StatusActive
}

// jobs is where kept jobs are, jobCopies where those are read that others keep.
func (s state) jobs() string      { return filepath.Join(s.dir, "jobs") }
func (s state) jobCopies() string { return filepath.Join(s.dir, "jobcopies") }

// Bounds of what a user may set for keeping jobs.
const (
	maxKeepJobs    = 1 << 14
	minKeeperLease = time.Second
	maxKeeperLease = time.Hour
	maxOrphanGrace = 24 * time.Hour

	defaultOrphanGrace = 10 * time.Minute
)

func (c TasksConfig) validateKeeper(fault func(key, format string, args ...any)) {
	if c.KeepJobs < 0 || c.KeepJobs > maxKeepJobs {
		fault("tasks.keep_jobs", "%d is not between 0 and %d", c.KeepJobs, maxKeepJobs)
	}
	if c.KeeperLease < minKeeperLease || c.KeeperLease > maxKeeperLease {
		fault("tasks.keeper_lease", "%s is not between %s and %s", c.KeeperLease, minKeeperLease, maxKeeperLease)
	}
	if c.KeeperGrace < c.KeeperLease {
		fault("tasks.keeper_grace", "%s is shorter than tasks.keeper_lease", c.KeeperGrace)
	}
	if c.OrphanGrace < 0 || c.OrphanGrace > maxOrphanGrace {
		fault("tasks.orphan_grace", "%s is not between 0s and %s", c.OrphanGrace, maxOrphanGrace)
	}
	if c.Retention <= 0 {
		fault("tasks.retention", "%s is not positive", c.Retention)
	}
}

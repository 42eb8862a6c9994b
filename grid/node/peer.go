package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"gotong/grid"
	"gotong/grid/disk"
	"gotong/grid/identity"
	"gotong/grid/invite"
	"gotong/grid/membership"
	"gotong/grid/peernet"
	"gotong/grid/roster"
	controlv1 "gotong/proto/control/v1"
	gridv1 "gotong/proto/grid/v1"
	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
	"gotong/storage/repair"
	"gotong/storage/segments"
	"gotong/storage/shardrpc"
	"gotong/storage/shardstore"
	"gotong/storage/vault"
	"gotong/tasks/rules"
	"gotong/tasks/taskrpc"
)

const (
	// drainTimeout is how long running calls of others may take when the peer
	// stops; stopTimeout bounds everything.
	drainTimeout = 3 * time.Second
	leaveTimeout = 2 * time.Second
	stopTimeout  = 9 * time.Second
)

// Options is what Open needs besides the home.
type Options struct {
	Config Config
	// Fabric makes raw connections; nil means TCP.
	Fabric peernet.Fabric
	// Executable is the program whose hidden command runs guests; empty: this one.
	Executable string
	// Shards makes what other peers see of this peer's store; nil: the store
	// itself. Tests let it misbehave.
	Shards func(storage.RemoteShards) storage.RemoteShards
	// Runner makes what runs tasks here; nil: the worker itself. Tests let it
	// falsify results.
	Runner func(taskrpc.Runner) taskrpc.Runner
	// Facts says what the donor's rules find of the machine; nil: sensors look.
	Facts func(now time.Time) rules.Facts
	// NoControl leaves the control socket out; the methods of Peer do the same.
	NoControl bool
	Logger    *slog.Logger
	// Reload reads the configuration again, validated; nil: it never changes.
	Reload func() (Config, error)
}

// Ready says that a peer serves.
type Ready struct {
	Peer     grid.PeerID
	Name     string
	GridName string
	Listen   string // HOST:PORT
}

// Peer is one whole peer. Open makes it, Run runs it once.
type Peer struct {
	home    home
	live    *liveConfig
	options Options
	logger  *slog.Logger
	closers []func() error // see onClose

	node    identity.NodeKey
	roster  *roster.Roster
	records *roster.Records
	invites *invite.Book
	joins   *invite.Server

	directory  *membership.Directory
	net        *peernet.Net
	clients    *peernet.Clients
	membership *membership.Membership

	store    *shardstore.Store
	fair     *fairShare
	shards   *shardrpc.Server
	holders  *gridHolders
	segments *segments.Segments
	spool    *segments.Spool
	vault    *vault.Vault
	backups  backups
	outdated atomic.Pointer[Failure] // why this device may not write its vault any more; nil: it may, as far as is known
	drills   drills
	drains   atomic.Int32 // that run
	pledging sync.Mutex   // one says at a time what this peer gives
	schedule *schedule
	repair   *repair.Repairer

	work    *work
	keeping *keeping
	views   views

	leave     chan struct{} // closed when the peer has left for good
	leaveOnce sync.Once
}

// Open takes the home of a peer that init or join made and opens everything in
// it; it listens, but serves nothing yet. After an error nothing stays open.
// Errors that the user can act on are *Failure. Run ends what Open opened; a
// Peer that is never run must be closed.
func Open(dir string, o Options) (*Peer, error) {
	h, err := openHome(dir)
	if err != nil {
		return nil, err
	}
	release, err := h.lock()
	if err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Executable == "" {
		if o.Executable, err = os.Executable(); err != nil {
			release()
			return nil, err
		}
	}
	p := &Peer{home: h, live: newLiveConfig(o.Config), options: o, logger: o.Logger, leave: make(chan struct{})}
	p.onClose(func() error { release(); return nil })
	if err := disk.RemoveAllTemps(h.state().dir); err != nil {
		return nil, errors.Join(fmt.Errorf("tidy up after a stop: %w", err), p.Close())
	}
	for _, open := range []func() error{p.openIdentity, p.openNetwork, p.openMembership, p.openStorage, p.openRepair, p.openTasks, p.openKeeper} {
		if err := open(); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// onClose adds what Close has to do; it does the last added first.
func (p *Peer) onClose(f func() error) { p.closers = append(p.closers, f) }

// Close ends what Open opened, in the opposite order. It may be called more
// than once.
func (p *Peer) Close() error {
	var errs []error
	for i := len(p.closers) - 1; i >= 0; i-- {
		errs = append(errs, p.closers[i]())
	}
	p.closers = nil
	return errors.Join(errs...)
}

// openIdentity loads who this peer is and who belongs to the grid, of which it
// has to be a member.
func (p *Peer) openIdentity() error {
	if err := p.loadIdentity(); err != nil || p.isMember() {
		return err
	}
	return &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: "this peer was removed from the grid, or left it",
		Meaning: "other peers refuse it; what they hold for its owner stays with them", Next: "ask for an invite and gotong join CODE --home NEW"}
}

// loadIdentity loads who this peer is and what it knows of the grid.
func (p *Peer) loadIdentity() (err error) {
	s := p.home.state()
	if p.node, err = identity.LoadNodeKey(s.nodeKey()); err != nil {
		return s.unreadable(s.nodeKey(), err)
	}
	if p.roster, err = roster.Open(s.roster()); err != nil {
		return s.unreadable(s.roster(), err)
	}
	p.onClose(p.roster.Close)
	if p.records, err = roster.OpenRecords(s.records(), p.roster.View().Grid()); err != nil {
		return s.unreadable(s.records(), err)
	}
	p.onClose(p.records.Close)
	if p.invites, err = invite.OpenBook(s.invites()); err != nil {
		return s.unreadable(s.invites(), err)
	}
	if bad := p.invites.Damaged(); len(bad) > 0 {
		p.logger.Warn("damaged invites were set aside; their codes do not work any more, so invite again", "files", bad)
	}
	p.joins = invite.NewServer(invite.Config{Node: p.node, Roster: p.roster, Records: p.records, Book: p.invites, Logger: p.logger})
	return nil
}

// ID returns this peer's id.
func (p *Peer) ID() grid.PeerID { return p.node.PeerID() }

// Run serves until ctx ends or the peer leaves the grid, then stops in order
// and closes everything. ready, if not nil, is called once others are served.
func (p *Peer) Run(ctx context.Context, ready func(Ready)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	run, err := p.start(ctx)
	if err != nil {
		return errors.Join(err, p.Close())
	}
	select { // whoever sees this peer as ready may hand it a task
	case <-p.work.opened():
	case <-ctx.Done():
	}
	if ready != nil && ctx.Err() == nil {
		ready(Ready{p.ID(), p.cfg().Name, p.roster.View().Name(), p.net.Addr().String()})
	}
	p.logger.Info("peer is up", "peer", p.ID(), "listen", p.net.Addr().String())
	select {
	case <-ctx.Done():
	case <-p.leave:
	case err = <-run.failed:
	}
	if late := run.stop(); late != nil {
		// A part still runs: to close under it would break it, so that is left to
		// the end of the process, which is safe at any moment.
		return errors.Join(err, late)
	}
	return errors.Join(err, p.Close())
}

// running is what start started; each part ends when its cancel is called.
type running struct {
	peer   *Peer
	failed chan error // the first part that ended by itself
	parts  []*part
}

// part is one loop with the means to end it.
type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

// start starts the parts; stop ends them in the opposite order, which is:
// no more commands, no more work of others, no more calls, membership, network.
func (p *Peer) start(ctx context.Context) (*running, error) {
	server, err := p.newServer()
	if err != nil {
		return nil, err
	}
	var control net.Listener
	if !p.options.NoControl {
		if control, err = listenControl(p.home); err != nil {
			return nil, err
		}
	}
	r := &running{peer: p, failed: make(chan error, 1)}
	r.add(ctx, "limits", p.keepLimits)
	r.add(ctx, "network", p.net.Run)
	r.add(ctx, "membership", p.membership.Run)
	r.add(ctx, "join", p.serveJoins)
	r.add(ctx, "addresses", p.watchAddresses)
	r.add(ctx, "outcast", p.comeBack)
	r.add(ctx, "calls", func(ctx context.Context) error { return server.Run(ctx, drainTimeout) })
	r.add(ctx, "returns", p.watchReturns)
	r.add(ctx, "shares", p.fair.run)
	r.add(ctx, "tasks", p.work.run)
	r.add(ctx, "keeper", p.keeping.keeper.Run)
	r.add(ctx, "copies of jobs", p.keeping.pruneCopies)
	r.add(ctx, "donor's rules", p.work.donor.run)
	r.add(ctx, "accounts", p.work.accounts.run)
	r.add(ctx, "schedule", func(ctx context.Context) error { return p.schedule.run(ctx, p.backUpSet) })
	r.add(ctx, "drill", p.runDrills)
	r.add(ctx, "heads", func(ctx context.Context) error { return p.backups.run(ctx, p.handOut, p.logger) })
	r.add(ctx, "repair", p.repair.Run)
	r.add(ctx, "spool", p.sweepSpool)
	if control != nil {
		own := &service{peer: p}
		commands := newControlServer(own, own.reading)
		r.add(ctx, "control", func(ctx context.Context) error { return serveControl(ctx, commands, control) })
	}
	return r, nil
}

// add starts one part. It gets a context that stop cancels; that of the whole
// peer only asks for the stop.
func (r *running) add(ctx context.Context, name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	part := &part{name: name, cancel: cancel, done: make(chan struct{})}
	r.parts = append(r.parts, part)
	go func() {
		defer close(part.done)
		err := run(ctx)
		if ctx.Err() == nil {
			if err == nil {
				err = errors.New("it ended by itself")
			}
			select {
			case r.failed <- fmt.Errorf("%s: %w", name, err):
			default: // others have ended too, and one is enough to stop
			}
		}
	}()
}

// stop ends the parts, last started first, within stopTimeout.
func (r *running) stop() error {
	deadline := time.NewTimer(stopTimeout)
	defer deadline.Stop()
	r.peer.sayGoodbye()
	for i := len(r.parts) - 1; i >= 0; i-- {
		part := r.parts[i]
		part.cancel()
		select {
		case <-part.done:
		case <-deadline.C:
			return fmt.Errorf("%s did not stop within %s; what was acknowledged is on the disk", part.name, stopTimeout)
		}
	}
	r.peer.logger.Info("peer has stopped", "peer", r.peer.ID())
	return nil
}

// sayGoodbye lets others know now what they would find out by themselves.
func (p *Peer) sayGoodbye() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	goodbye := p.membership.Leave
	select {
	case <-p.leave:
		goodbye = p.membership.LeaveForGood
	default:
	}
	if err := goodbye(ctx); err != nil {
		p.logger.Debug("not everybody heard the good-bye", "err", err)
	}
}

// newServer puts everything that other peers may call behind the table of who
// may call it.
func (p *Peer) newServer() (*peernet.Server, error) {
	var services peernet.Services
	gridv1.RegisterGridServer(&services, p.membership.Service())
	shardsv1.RegisterShardsServer(&services, p.shards)
	p.work.register(&services)
	p.keeping.register(&services)
	return peernet.NewServer(p.net, methodRules(), &services, grpc.ForceServerCodecV2(shardrpc.Codec()))
}

package keeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/tasks"
)

// drive is one epoch in which this peer drives a job.
type drive struct {
	j      *kept
	stream Stream
	stop   context.CancelCauseFunc

	mu    sync.Mutex
	links map[grid.PeerID]*link
	news  chan struct{} // closed and replaced when a link learnt something
}

// drive begins an epoch and drives the job until it is over, ctx ends, or
// another keeper beats this one (ErrDeposed).
func (j *kept) drive(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	d := &drive{j: j, stop: stop, links: map[grid.PeerID]*link{}, news: make(chan struct{})}
	j.mu.Lock()
	d.stream = j.nextStream()
	generation := j.generation
	j.driving, j.tail, j.tailBytes = d, nil, 0
	j.mu.Unlock()
	var wg sync.WaitGroup
	defer func() {
		stop(nil)
		wg.Wait()
		j.mu.Lock()
		j.driving, j.tail, j.tailBytes = nil, nil, 0
		j.heard = time.Now()
		j.fire()
		j.mu.Unlock()
	}()
	begun, err := j.k.cfg.Book.Begun(d.stream, generation, time.Now())
	if err == nil {
		err = j.own(d.stream, [][]byte{begun})
	}
	if err != nil {
		return fmt.Errorf("begin epoch %d: %w", d.stream.Epoch, err)
	}
	j.logger.Info("drives", "epoch", d.stream.Epoch)
	d.link(ctx, &wg) // before introduce looks
	wg.Go(func() { d.tend(ctx, &wg) })
	if err := d.introduce(ctx); err != nil {
		return err
	}
	wg.Go(func() { d.heed(ctx) })
	return d.work(ctx)
}

// introduce returns when all keepers that are reached know of the epoch.
func (d *drive) introduce(ctx context.Context) error {
	limit := time.NewTimer(d.j.k.cfg.Lease)
	defer limit.Stop()
	for {
		news := d.watch()
		if d.all(func(l *link) bool { return l.tried }) {
			return context.Cause(ctx)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C: // who has not answered by now is not reached
			return nil
		case <-news:
		}
	}
}

// work runs the job and tells the others how it ended.
func (d *drive) work(ctx context.Context) error {
	for {
		if err := d.obey(); err != nil {
			return err
		}
		d.j.mu.Lock()
		over, generation := d.j.over(), d.j.generation
		d.j.mu.Unlock()
		if over {
			if err := d.farewell(ctx); err != nil || d.idle() {
				return err
			}
			continue // its owner wants more
		}
		running, cancel := context.WithCancelCause(ctx)
		release := d.cancelWhen(running, cancel)
		err := d.j.k.cfg.Drive(running, Driven{
			Job: d.j.plan.Job, Stream: d.stream, Generation: generation, Journal: d.j.journal,
			Append: func(records [][]byte) error { return d.append(running, records) },
		})
		cancelled := errors.Is(context.Cause(running), tasks.ErrCancelled)
		cancel(nil)
		release()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !cancelled:
			return err
		}
		d.j.mu.Lock()
		stuck := !cancelled && d.j.endedGen < int64(generation)
		d.j.mu.Unlock()
		if stuck {
			return errors.New("driving returned before the job was over")
		}
	}
}

// idle reports whether the job is over.
func (d *drive) idle() bool {
	d.j.mu.Lock()
	defer d.j.mu.Unlock()
	return d.j.over()
}

// obey writes what the owner wants into the journal: the end, or a new
// generation.
func (d *drive) obey() error {
	d.j.mu.Lock()
	generation, ended := d.j.generation, d.j.endedGen >= int64(d.j.generation)
	cancel, cancelled := d.j.said.find(KindCancel, func(s Statement) bool { return s.Generation == generation })
	_, again := d.j.said.find(KindRetry, func(s Statement) bool { return s.Generation == generation+1 })
	expired := time.Now().After(d.j.plan.Expires)
	d.j.mu.Unlock()
	book, now := d.j.k.cfg.Book, time.Now()
	var raw []byte
	var err error
	switch {
	case !ended && cancelled:
		raw, err = book.Cancelled(d.stream, generation, now, cancel.Why)
	case ended && again:
		raw, err = book.Retried(d.stream, generation+1, now, d.j.journal)
	case !ended && expired:
		raw, err = book.Expired(d.stream, generation, now)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	return d.j.own(d.stream, [][]byte{raw})
}

// cancelWhen cancels when the owner says so or the job expires. The returned
// function ends that.
func (d *drive) cancelWhen(ctx context.Context, cancel context.CancelCauseFunc) func() {
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			changed := d.j.watch()
			d.j.mu.Lock()
			generation := d.j.generation
			_, yes := d.j.said.find(KindCancel, func(s Statement) bool { return s.Generation == generation })
			yes = yes || d.j.removed() || time.Now().After(d.j.plan.Expires)
			d.j.mu.Unlock()
			if yes {
				cancel(tasks.ErrCancelled)
				return
			}
			d.j.wait(ctx, d.j.plan.Expires.Add(time.Second), changed)
		}
	})
	return wg.Wait
}

// heed stops driving when the owner wants the job forgotten.
func (d *drive) heed(ctx context.Context) {
	for ctx.Err() == nil {
		changed := d.j.watch()
		d.j.mu.Lock()
		removed := d.j.removed()
		d.j.mu.Unlock()
		if removed {
			d.stop(tasks.ErrCancelled)
			return
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// append makes records durable here, and at another keeper if one is reached.
func (d *drive) append(ctx context.Context, records [][]byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := d.j.own(d.stream, records); err != nil {
		return err
	}
	d.j.mu.Lock()
	want := d.j.have[d.stream]
	d.j.mu.Unlock()
	for {
		news := d.watch()
		if d.acknowledged(want) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-news:
		}
	}
}

// acknowledged reports whether a keeper has so many records of this epoch, or
// none is reached.
func (d *drive) acknowledged(want uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	reached := false
	for _, l := range d.links {
		if l.have[d.stream] >= want {
			return true
		}
		reached = reached || l.live
	}
	return !reached
}

// farewell returns when all keepers that are reached have the whole journal,
// within a few leases.
func (d *drive) farewell(ctx context.Context) error {
	limit := time.NewTimer(farewellLeases * d.j.k.cfg.Lease)
	defer limit.Stop()
	for {
		news := d.watch()
		d.j.mu.Lock()
		have := make(Vector, len(d.j.have))
		for s, n := range d.j.have {
			have[s] = n
		}
		d.j.mu.Unlock()
		if d.all(func(l *link) bool { return l.tried && (!l.live || l.have.Covers(have)) }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			return nil
		case <-news:
		}
	}
}

const farewellLeases = 6

// all reports whether ok holds for every link.
func (d *drive) all(ok func(*link) bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.links {
		if !ok(l) {
			return false
		}
	}
	return true
}

// watch returns a channel that is closed when a link learns something.
func (d *drive) watch() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.news
}

// fire wakes those that watch. Holds mu.
func (d *drive) fire() {
	close(d.news)
	d.news = make(chan struct{})
}

// depose ends the drive because of another driver.
func (d *drive) depose(by Stream) {
	d.stop(fmt.Errorf("%w: %s in epoch %d", ErrDeposed, by.Driver.Short(), by.Epoch))
}

// tend keeps a link to every other keeper, and the number of keepers up.
func (d *drive) tend(ctx context.Context, wg *sync.WaitGroup) {
	ticker := time.NewTicker(d.j.k.cfg.Lease)
	defer ticker.Stop()
	for ctx.Err() == nil {
		changed := d.j.watch()
		d.link(ctx, wg)
		select {
		case <-ctx.Done():
		case <-ticker.C:
			d.recruit(ctx)
		case <-changed:
		}
	}
}

// link starts links to keepers that have none, and ends those to peers that are
// none any more.
func (d *drive) link(ctx context.Context, wg *sync.WaitGroup) {
	peers := d.j.others()
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, l := range d.links {
		if !slices.Contains(peers, id) {
			l.end()
			delete(d.links, id)
			d.fire()
		}
	}
	for _, id := range peers {
		if d.links[id] == nil {
			linked, end := context.WithCancel(ctx)
			l := &link{d: d, peer: id, end: end, seen: time.Now()}
			d.links[id] = l
			wg.Go(func() { l.run(linked) })
		}
	}
}

// recruit replaces a keeper that has been away for too long, or adds one where
// there are too few.
func (d *drive) recruit(ctx context.Context) {
	var lost grid.PeerID
	d.mu.Lock()
	for id, l := range d.links {
		if !l.live && time.Since(l.seen) > d.j.k.cfg.Grace {
			lost = id
		}
	}
	d.mu.Unlock()
	d.j.recruit(ctx, d.stream, lost)
}

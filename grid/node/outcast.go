package node

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/invite"
	"gotong/grid/peernet"
	"gotong/grid/roster"
)

const (
	// outcastPause is the wait between two questions of a peer that is no member,
	// which doubles up to outcastPauseMax.
	outcastPause    = 15 * time.Second
	outcastPauseMax = 10 * time.Minute
)

// AwaitMembership returns when the peer of a home is a member of its grid, which
// as a rule it is at once. One that was removed listens for those who bring a
// word that undoes the removal, and asks the peers that it knew; waiting is
// called before that. It returns nil for a peer that took itself out: Open says
// so. The home is free again when it returns; errors are those of Open.
func AwaitMembership(ctx context.Context, dir string, o Options, waiting func()) error {
	h, err := openHome(dir)
	if err != nil {
		return err
	}
	release, err := h.lock()
	if err != nil {
		return err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Peer{home: h, live: newLiveConfig(o.Config), options: o, logger: o.Logger, leave: make(chan struct{})}
	p.onClose(func() error { release(); return nil })
	err = p.loadIdentity()
	if err == nil && !p.isMember() && !p.roster.View().Left(p.ID()) {
		if err = p.openNetwork(); err == nil {
			waiting()
			err = p.awaitMembership(ctx)
		}
	}
	return errors.Join(err, p.Close())
}

// awaitMembership serves strangers and asks around until this peer is a member.
func (p *Peer) awaitMembership(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	failed := make(chan error, 3)
	for _, part := range []func(context.Context) error{p.net.Run, p.serveJoins, p.comeBack} {
		wait.Go(func() {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
	}
	for {
		changed := p.roster.Changed()
		if p.isMember() {
			return nil
		}
		select {
		case <-changed:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// isMember reports whether the roster here counts this peer as one.
func (p *Peer) isMember() bool { return p.roster.View().Status(p.ID()) == roster.StatusActive }

// comeBack asks, while this peer is no member, one after the other of those that
// it knew whether it is one again. Its own dials reach nobody then, and others
// may not know where it is now.
func (p *Peer) comeBack(ctx context.Context) error {
	pause := outcastPause
	var unasked []grid.PeerID
	for {
		changed := p.roster.Changed()
		var next <-chan time.Time
		if p.isMember() {
			pause = outcastPause
		} else {
			if len(unasked) == 0 { // nobody is asked again before everybody was
				unasked = slices.DeleteFunc(p.records.Peers(), func(id grid.PeerID) bool { return id == p.ID() })
				rand.Shuffle(len(unasked), func(i, j int) { unasked[i], unasked[j] = unasked[j], unasked[i] })
			}
			if len(unasked) > 0 {
				if err := p.askFor(ctx, unasked[0]); err != nil {
					p.logger.Debug("a peer does not count this one as a member", "peer", unasked[0], "err", err)
				}
				unasked = unasked[1:]
			}
			next = time.After(pause/2 + rand.N(pause))
			pause = min(2*pause, outcastPauseMax)
		}
		select {
		case <-next:
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// askFor asks a peer for its roster, if that counts this peer as a member.
func (p *Peer) askFor(ctx context.Context, id grid.PeerID) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	conn, err := p.net.DialAny(ctx, p.directory.Addresses(id), id, peernet.ProtoJoin)
	if err != nil {
		return err
	}
	defer conn.Close()
	if conn.Standing() != peernet.Member {
		return grid.ErrRemoved
	}
	news, err := invite.Refresh(ctx, conn, p.roster.View().Grid(), p.ID())
	if err != nil {
		return err
	}
	if _, err := p.roster.Merge(news.Statements); err != nil {
		return err
	}
	_, err = p.records.PutAll(news.Records, p.roster.View())
	return err
}

package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/invite"
	"gotong/grid/peernet"
	"gotong/grid/roster"
)

const (
	// maxHeard friends are asked for their roster, hearTimeout bounds one answer.
	maxHeard    = 16
	hearTimeout = 10 * time.Second
)

// DoubtfulDevice is another device of the owner that signed lately what its
// owner may not have.
type DoubtfulDevice struct {
	Device   grid.PeerID
	Name     string
	Removals []DoubtfulRemoval // the oldest first
	Forked   bool              // it signed two different statements under one number
}

// DoubtfulRemoval is one removal of a DoubtfulDevice.
type DoubtfulRemoval struct {
	Who     string    // the peer's name; of an owner those of the peers
	Owner   bool      // all peers of an owner
	Through string    // who signed it, when the device only let that one in; else empty
	When    time.Time // friends learnt it
}

// doubts are what a recovering device knows of the devices before it.
type doubts struct {
	learnt  map[roster.Hash]time.Time
	names   map[grid.PeerID]string
	disown  []byte // the owner's word that takes it back; nil: nothing is
	signed  []roster.Doubt
	undone  []DoubtfulDevice
	dropped []string
}

// learn notes what one friend says about when statements came, and about names.
// Of two times the earlier counts.
func (d *doubts) learn(seen invite.JoinResult) {
	if d.learnt == nil {
		d.learnt, d.names = map[roster.Hash]time.Time{}, map[grid.PeerID]string{}
	}
	for hash, at := range seen.Learnt {
		if known, ok := d.learnt[hash]; !ok || at.Before(known) {
			d.learnt[hash] = at
		}
	}
	for _, raw := range seen.Records {
		if record, err := roster.ParseRecord(raw); err == nil {
			d.names[record.Peer] = record.Name
		}
	}
}

// look asks any peer for its statements, with nothing but the owner key.
func (r *recovery) look(ctx context.Context, id grid.PeerID, addresses []string) (d identity.Delegation, seen invite.JoinResult, err error) {
	err = r.knock(ctx, Contact{Peer: id, Addresses: addresses}, func(ctx context.Context, conn *peernet.Conn) error {
		d, seen, err = invite.Look(ctx, conn, r.setup.phrase.OwnerKey())
		return err
	})
	return d, seen, err
}

// hearOthers asks friends, members or not, for statements that the contact did
// not have, and takes back what has to be.
func (r *recovery) hearOthers(ctx context.Context) error {
	var ask []grid.PeerID
	for _, id := range r.records.Peers() {
		owner, _ := r.roster.View().OwnerOf(id)
		if id != r.contact.Peer && id != r.setup.node.PeerID() && owner != r.owner() && len(ask) < maxHeard {
			ask = append(ask, id)
		}
	}
	heard := make([]invite.JoinResult, len(ask))
	var wait sync.WaitGroup
	for i, id := range ask {
		record, _, _ := r.records.Get(id)
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, hearTimeout)
			defer cancel()
			if _, seen, err := r.look(ctx, id, record.Addresses); err == nil {
				heard[i] = seen
			}
		})
	}
	wait.Wait()
	for _, seen := range heard {
		r.learn(seen)
		if _, err := r.roster.Merge(seen.Statements); err != nil && !errors.Is(err, roster.ErrStatement) {
			return err
		}
	}
	changed, err := r.settleDoubts(r.roster.View())
	if err != nil || !changed {
		return err
	}
	if err := r.introduce(ctx); err != nil {
		return contactFailure(err)
	}
	r.learn(r.result)
	if _, err := r.roster.Merge(r.result.Statements); err != nil {
		return err
	}
	_, _ = r.records.PutAll(r.result.Records, r.roster.View()) // those that are good are kept
	return nil
}

// settleDoubts looks at what the owner's other devices signed lately, asks what
// of it is to be undone, and signs that; changed says that there is something new
// to show.
func (r *recovery) settleDoubts(view *roster.View) (changed bool, err error) {
	within := r.params.UndoWithin
	if within == 0 {
		within = r.params.Config.Retention.Floor
	}
	found := view.Doubts(r.owner(), time.Now().Add(-within), r.learnt)
	if len(found) == 0 || r.params.Undo == nil || slices.EqualFunc(found, r.signed, roster.Doubt.Same) {
		return false, nil
	}
	shown := make([]DoubtfulDevice, 0, len(found))
	for _, d := range found {
		shown = append(shown, r.show(view, d))
	}
	needed := view.OwnerStatus(r.owner()) == roster.StatusRemoved || view.Status(r.contact.Peer) != roster.StatusActive
	chosen, err := r.params.Undo(shown, needed)
	if err != nil {
		return false, err
	}
	r.signed = found
	keep := func(id grid.PeerID) bool { return !slices.Contains(chosen, id) }
	found = slices.DeleteFunc(slices.Clone(found), func(d roster.Doubt) bool { return keep(d.Device) })
	r.undone = slices.DeleteFunc(shown, func(d DoubtfulDevice) bool { return keep(d.Device) })
	if len(found) == 0 {
		return false, nil
	}
	r.disown, err = roster.SignDisown(r.setup.phrase.OwnerKey(), r.grid, found)
	return err == nil, err
}

// noteDropped names who came in by what was taken back.
func (r *recovery) noteDropped() {
	if r.disown == nil {
		return
	}
	view := r.roster.View()
	for _, id := range r.records.Peers() {
		if view.Status(id) == roster.StatusUnknown {
			r.dropped = append(r.dropped, r.nameOf(id))
		}
	}
}

// show names what is doubted.
func (r *recovery) show(view *roster.View, d roster.Doubt) DoubtfulDevice {
	out := DoubtfulDevice{Device: d.Device, Name: r.nameOf(d.Device), Forked: d.Forked}
	for _, removal := range d.Removals {
		shown := DoubtfulRemoval{When: removal.Learnt, Owner: removal.Peer.IsZero()}
		if removal.By != d.Device {
			shown.Through = r.nameOf(removal.By)
		}
		if shown.Owner {
			shown.Who = r.ownerName(view, removal.Owner)
		} else {
			shown.Who = r.nameOf(removal.Peer)
		}
		out.Removals = append(out.Removals, shown)
	}
	return out
}

// ownerName names an owner by one of the peers.
func (r *recovery) ownerName(view *roster.View, owner grid.OwnerID) string {
	for _, id := range view.Removed() {
		if of, _ := view.OwnerOf(id); of == owner {
			return r.nameOf(id)
		}
	}
	return owner.Short()
}

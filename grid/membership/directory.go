package membership

import (
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/peernet"
	"gotong/grid/roster"
)

const (
	// maxOffered addresses are kept for one peer; the newest stay.
	maxOffered = 4
	// offeredFor is how long an address found on the local network is tried.
	offeredFor = 10 * time.Minute
)

// Directory tells peernet who is a member and where. It joins the roster, the
// signed records and the addresses found on the local network. It exists before
// the network and the Membership, which tells it of changes.
type Directory struct {
	roster  *roster.Roster
	records *roster.Records
	changed *broadcast

	mu      sync.Mutex
	offered map[grid.PeerID][]offer // as many as there are members
}

type offer struct {
	address string
	until   time.Time
}

var _ peernet.Directory = (*Directory)(nil)

// NewDirectory returns a directory of roster and records, which stay open for
// as long as it is used.
func NewDirectory(r *roster.Roster, records *roster.Records) *Directory {
	return &Directory{roster: r, records: records, changed: newBroadcast(), offered: make(map[grid.PeerID][]offer)}
}

// Status returns what the roster says of the peer now.
func (d *Directory) Status(id grid.PeerID) peernet.Standing {
	switch d.roster.View().Status(id) {
	case roster.StatusActive:
		return peernet.Member
	case roster.StatusRemoved:
		return peernet.Removed
	}
	return peernet.Unknown
}

// Addresses returns where a peer may be dialled: what its record says, then
// what was found on the local network. Who answers there proves who it is.
func (d *Directory) Addresses(id grid.PeerID) []string {
	record, _, _ := d.records.Get(id)
	addresses := slices.Clone(record.Addresses)
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.offered[id] {
		if now.Before(o.until) && !slices.Contains(addresses, o.address) {
			addresses = append(addresses, o.address)
		}
	}
	return addresses
}

// Members returns the active members, this peer among them.
func (d *Directory) Members() []grid.PeerID {
	members := d.roster.View().Members()
	ids := make([]grid.PeerID, len(members))
	for i, m := range members {
		ids[i] = m.ID
	}
	return ids
}

// Changed returns a channel that is closed at the next change of the above
// that Membership learns of.
func (d *Directory) Changed() <-chan struct{} { return d.changed.wait() }

// Offer adds an address at which a member might be; true when it is news.
func (d *Directory) Offer(id grid.PeerID, address string) bool {
	if _, member := d.roster.View().Member(id); !member || roster.CheckAddress(address) != nil {
		return false
	}
	d.mu.Lock()
	offers := slices.DeleteFunc(d.offered[id], func(o offer) bool { return !time.Now().Before(o.until) })
	before := len(offers)
	offers = slices.DeleteFunc(offers, func(o offer) bool { return o.address == address })
	news := len(offers) == before
	offers = slices.Insert(offers, 0, offer{address, time.Now().Add(offeredFor)})
	d.offered[id] = offers[:min(len(offers), maxOffered)]
	d.mu.Unlock()
	if news {
		d.touch()
	}
	return news
}

func (d *Directory) touch() { d.changed.fire() }

package node

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/invite"
	"gotong/grid/membership"
	"gotong/grid/peernet"
	"gotong/grid/roster"
	"gotong/storage"
	"gotong/storage/placement"
	"gotong/storage/segments"
	"gotong/storage/shardrpc"
	"gotong/storage/vault"
)

// recovery is a recovering device before it has a home: a member that only
// calls others and serves nobody.
type recovery struct {
	params  RecoverParams
	setup   setup
	contact Contact
	grid    grid.GridID
	epoch   uint32
	result  invite.JoinResult // of the last introduction
	doubts                    // what other devices of the owner signed

	net      *peernet.Net
	roster   *roster.Roster
	kept     bool // the home closes the roster
	records  *roster.Records
	clients  *peernet.Clients
	members  *peernet.Net // like net, with the roster
	segments *recoverySegments

	vaults   []FoundVault
	asked    int
	answered atomic.Int32
}

// recoverySegments reads segments of any vault and knows no own one.
type recoverySegments struct {
	*segments.Segments
}

// Get returns a whole segment.
func (s *recoverySegments) Get(ctx context.Context, id storage.SegmentID, holders []storage.Holder, buffer []byte) ([]byte, error) {
	return s.Segments.Get(ctx, id, segments.Hint{Holders: holders, Buffer: buffer})
}

func (r *recovery) owner() grid.OwnerID { return r.setup.owner() }

// listen makes the network by which strangers knock; nothing listens on it.
func (r *recovery) listen() (err error) {
	r.net, err = peernet.New(peernet.Config{Node: r.setup.node, Directory: nobody{}, Fabric: r.params.Fabric})
	return err
}

func (r *recovery) close() {
	if r.clients != nil {
		_ = r.clients.Close() // nothing of it is needed any more
	}
	if r.segments != nil {
		r.segments.Close()
	}
	for _, n := range []*peernet.Net{r.members, r.net} {
		if n != nil {
			_ = n.Close()
		}
	}
	if r.roster != nil && !r.kept {
		_ = r.roster.Close()
	}
	if r.records != nil {
		_ = r.records.Close()
	}
}

// knock opens a join connection to a contact and hands it to f.
func (r *recovery) knock(ctx context.Context, c Contact, f func(context.Context, *peernet.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, contactTimeout)
	defer cancel()
	conn, err := r.net.DialAny(ctx, c.Addresses, c.Peer, peernet.ProtoJoin)
	if err != nil {
		return err
	}
	defer conn.Close()
	return f(ctx, conn)
}

// find asks a contact for the grid of the owner, and the owner's epoch in it.
func (r *recovery) find(ctx context.Context, c Contact) (d identity.Delegation, err error) {
	err = r.knock(ctx, c, func(ctx context.Context, conn *peernet.Conn) error {
		d, err = invite.Find(ctx, conn, r.setup.phrase.OwnerKey())
		return err
	})
	return d, err
}

// introduce shows the contact the owner's word for this device.
func (r *recovery) introduce(ctx context.Context) error {
	return r.knock(ctx, r.contact, func(ctx context.Context, conn *peernet.Conn) (err error) {
		r.result, err = invite.Recover(ctx, conn, r.grid, invite.JoinParams{
			Node: r.setup.node, OwnerKey: r.setup.phrase.OwnerKey(),
			Delegation: identity.Delegation{Capabilities: capabilities(r.params.WriteOnly), Epoch: r.epoch, Created: time.Now()},
			Disown:     r.disown,
		})
		return err
	})
}

// enter stores what the contact handed over and opens the network as a member.
func (r *recovery) enter() (err error) {
	s := r.setup.state
	if r.roster, err = keepJoined(s, r.grid, r.result); err != nil {
		return err
	}
	if r.records, err = roster.OpenRecords(s.records(), r.grid); err != nil {
		return err
	}
	r.members, err = peernet.New(peernet.Config{
		Node: r.setup.node, Directory: membership.NewDirectory(r.roster, r.records), Fabric: r.params.Fabric,
		Introduce: func(ctx context.Context, conn *peernet.Conn) error {
			return invite.Introduce(ctx, conn, r.roster.PathTo(r.setup.node.PeerID()))
		},
	})
	if err != nil {
		return err
	}
	r.clients = peernet.NewClients(r.members)
	read, err := segments.New(segments.Config{Holders: r, Node: r.setup.node.Private(), Owner: r.owner()})
	r.segments = &recoverySegments{read}
	return err
}

// countFriends notes how many will be asked.
func (r *recovery) countFriends() {
	for _, id := range r.Members() {
		if !r.own(id) {
			r.asked++
		}
	}
}

// Shards implements segments.Holders.
func (r *recovery) Shards(id grid.PeerID) (storage.RemoteShards, error) {
	conn, err := r.clients.Conn(id)
	if err != nil {
		return nil, err
	}
	client := shardrpc.NewClient(conn, id, shardrpc.ClientConfig{})
	if r.own(id) {
		return client, nil
	}
	return countedHeads{client, &r.answered}, nil
}

// own reports whether a member is another device of the owner.
func (r *recovery) own(id grid.PeerID) bool {
	m, _ := r.roster.View().Member(id)
	return m.Owner == r.owner()
}

// countedHeads counts the friends who answered for heads.
type countedHeads struct {
	storage.RemoteShards
	answered *atomic.Int32
}

// Heads implements storage.HeadStore.
func (c countedHeads) Heads(ctx context.Context, owner grid.OwnerID) ([]storage.VaultHeads, error) {
	heads, err := c.RemoteShards.Heads(ctx, owner)
	if err == nil {
		c.answered.Add(1)
	}
	return heads, err
}

// Candidates implements segments.Holders: nothing is put.
func (r *recovery) Candidates(context.Context, grid.OwnerID, grid.PeerID) []placement.Candidate {
	return nil
}

// Site implements segments.Holders.
func (r *recovery) Site(grid.PeerID) string { return "" }

// Members implements segments.Holders.
func (r *recovery) Members() []grid.PeerID {
	var out []grid.PeerID
	for _, m := range r.roster.View().Members() {
		if m.ID != r.setup.node.PeerID() {
			out = append(out, m.ID)
		}
	}
	return out
}

// answers reports whether a device of the owner is there.
func (r *recovery) answers(ctx context.Context, id grid.PeerID) bool {
	if _, member := r.roster.View().Member(id); !member || id == r.setup.node.PeerID() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := r.members.Dial(ctx, id, peernet.ProtoGRPC)
	if err != nil {
		return false
	}
	_ = conn.Close() // it was only to see
	return true
}

func (r *recovery) nameOf(id grid.PeerID) string {
	if name := r.names[id]; name != "" {
		return name
	}
	return id.Short()
}

// publish hands the head by which this device took the vault over to friends;
// what they do not get now the peer gives them once it is up.
func (r *recovery) publish(ctx context.Context, dir string) int {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	v, err := vault.Open(home{dir}.state().vault(), vault.Config{Segments: &vaultSegments{Segments: r.segments.Segments}, Owner: r.owner()})
	if err != nil {
		return 0
	}
	headed, err := v.Publish(ctx)
	if errors.Join(err, v.Close()) != nil {
		return 0
	}
	return headed
}

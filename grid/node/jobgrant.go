package node

import (
	"fmt"
	"time"

	"gotong/grid/roster"
	"gotong/storage"
	"gotong/tasks"
	"gotong/tasks/contents"
)

// runLife is for how long the grant of an attached run holds; workers take no
// task under it later.
const runLife = 30 * 24 * time.Hour

// JobContents stores and fetches contents of jobs on the grid.
func (p *Peer) JobContents() *contents.Contents { return p.work.contents }

// grantJob signs the grant of a job of this peer's owner, with which members
// work on it for so long and store as much as bytes for it.
func (p *Peer) grantJob(job tasks.JobID, bytes int64, life time.Duration) ([]byte, error) {
	now := time.Now()
	raw, err := storage.SignJobGrant(p.node.Private(), storage.JobGrant{
		Job: job, Owner: p.owner(), Created: now, Expires: now.Add(life), OutputBytes: bytes, Delegation: p.grant(),
	})
	if err != nil {
		return nil, fmt.Errorf("grant for the job: %w", err)
	}
	return raw, nil
}

// authorizeJob judges whether work is taken under the grant of a job: its owner
// has to be a member, and the grant has to hold. The device that signed may be
// gone, because the owner still wants the results.
func (p *Peer) authorizeJob(g storage.SignedJobGrant) error {
	view := p.roster.View()
	if view.OwnerStatus(g.Owner) != roster.StatusActive {
		return fmt.Errorf("owner %s is no member: %w", g.Owner.Short(), storage.ErrDenied)
	}
	return g.Allows(view.Grid(), time.Now())
}

// GrantJob makes the grant of a job of this peer's owner; see storage.JobGrant.
func (p *Peer) GrantJob(job tasks.JobID, bytes int64, life time.Duration) ([]byte, error) {
	return p.grantJob(job, bytes, life)
}

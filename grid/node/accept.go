package node

import (
	"fmt"
	"slices"
	"strings"

	"gotong/grid"
	"gotong/grid/roster"
	"gotong/tasks"
)

// admit returns why tasks of an owner are not run here, or nil.
func (p *Peer) admit(owner grid.OwnerID) error {
	c := p.cfg().Donate
	if owner == p.owner() {
		return nil
	}
	if p.named(c.Deny, owner, true) {
		return fmt.Errorf("%w: its donor runs nothing for this owner (donate.deny)", tasks.ErrUnfit)
	}
	switch {
	case slices.Contains(c.Accept, acceptMembers), p.named(c.Allow, owner, false), p.named(c.Accept, owner, false):
		return nil
	case slices.Contains(c.Accept, acceptInvited) && invitedBy(p.roster.View(), owner, p.owner()):
		return nil
	}
	return fmt.Errorf("%w: its donor runs tasks of others only (donate.accept: %s)", tasks.ErrUnfit, strings.Join(c.Accept, ", "))
}

// admitNative returns why native commands of an owner are not run here, or nil.
func (p *Peer) admitNative(owner grid.OwnerID) error {
	c := p.cfg().Donate
	switch {
	case !c.runsNative():
		return fmt.Errorf("%w: its donor runs no native commands (donate.native: %s)", tasks.ErrUnfit, nativeNone)
	case owner == p.owner(), slices.Contains(c.Native, acceptMembers), p.named(c.Native, owner, false):
		return nil
	}
	return fmt.Errorf("%w: its donor runs native commands of others only (donate.native: %s)", tasks.ErrUnfit, strings.Join(c.Native, ", "))
}

// invitedBy reports whether a peer of owner was invited by a peer of another
// owner.
func invitedBy(view *roster.View, owner, inviter grid.OwnerID) bool {
	for _, m := range view.Members() {
		if m.Owner != owner || m.InvitedBy.IsZero() {
			continue
		}
		if by, ok := view.OwnerOf(m.InvitedBy); ok && by == inviter {
			return true
		}
	}
	return false
}

// named reports whether a list names an owner: by its id, by the id of one of its
// peers, or by what one of its peers is called. Anyone may take any name, so one
// that peers of two owners use means neither; in doubt it means both.
func (p *Peer) named(list []string, owner grid.OwnerID, inDoubt bool) bool {
	if len(list) == 0 {
		return false
	}
	named, others := map[string]bool{owner.String(): true}, map[string]bool{}
	for _, m := range p.roster.View().Members() {
		record, _, _ := p.records.Get(m.ID)
		if m.Owner == owner {
			named[m.ID.String()], named[strings.ToLower(record.Name)] = true, true
		} else {
			others[strings.ToLower(record.Name)] = true
		}
	}
	return slices.ContainsFunc(list, func(name string) bool {
		name = strings.ToLower(name)
		return name != "" && named[name] && (inDoubt || !others[name])
	})
}

package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/storage/segments"
)

// reasons are why friends did not help, in words. The first that fits one of a
// peer's errors is shown; a peer that none fits did not answer.
var reasons = []struct {
	word string
	is   []error
}{
	{badData, []error{storage.ErrCorrupt}},
	{noRoom, []error{storage.ErrQuota, storage.ErrFull}},
	{"disk failed", []error{storage.ErrDisk}},
	{denied, []error{storage.ErrDenied, storage.ErrStaleEpoch, grid.ErrRemoved, grid.ErrNotMember}},
}

const (
	missing   = "missing" // did not answer
	noRoom    = "no room"
	denied    = "refused"
	withoutIt = "without it"
	badData   = "bad data from"
)

// explainTooFew says how many friends are needed, and names those that did not
// help under the reason. Other errors are explained as everywhere.
func (p *Peer) explainTooFew(err error) error {
	var few *segments.TooFewError
	if errors.As(err, &few) {
		return tooFew(few, p.nameOf)
	}
	return err
}

// noRoom explains a put for which nobody was asked, because nobody who is here
// said to have room; nil for other errors.
func (p *Peer) noRoom(err error) *Failure {
	var few *segments.TooFewError
	var heads *segments.TooFewHeadHolders
	if !errors.Is(err, storage.ErrTooFewPeers) || errors.As(err, &few) || errors.As(err, &heads) {
		return nil
	}
	var names []string
	for _, peer := range p.membership.Peers()[1:] { // the first is this one
		if peer.State == grid.StateAlive {
			names = append(names, peer.DisplayName())
		}
	}
	slices.Sort(names)
	f := explain(storage.ErrTooFewPeers)
	f.What = "nobody is here who takes what is new"
	if len(names) > 0 {
		f.What += "; " + noRoom + ": " + strings.Join(names, ", ")
		f.refuseForRoom()
	}
	return f
}

// refuseForRoom makes a failure one that donors can end.
func (f *Failure) refuseForRoom() {
	f.Kind, f.Next = controlv1.Kind_KIND_REFUSED, "give more, ask friends to, or invite others: gotong peers"
}

func tooFew(few *segments.TooFewError, nameOf func(grid.PeerID) string) *Failure {
	f := explain(fewKind(few))
	f.What = fmt.Sprintf("segment %s needs %d of %d, %d answered", few.Segment.Short(), few.Need, few.Of, few.Answered)
	if few.Of == 0 {
		f.What = fmt.Sprintf("no friend who keeps segment %s answered", few.Segment.Short())
	}
	groups := reasonsOf(few)
	for _, word := range slices.Sorted(maps.Keys(groups)) {
		var names []string
		for _, id := range groups[word] {
			names = append(names, nameOf(id))
		}
		slices.Sort(names)
		f.What += "; " + word + ": " + strings.Join(names, ", ")
	}
	if peer, why := refusalOf(few); why != "" {
		f.What += "; " + nameOf(peer) + " says: " + why
	}
	switch {
	case len(few.Missing) == 0 || len(groups[noRoom])+len(groups[denied]) < len(few.Missing) || errors.Is(few, storage.ErrTooFewShards):
	case len(groups[denied]) == 0:
		f.refuseForRoom()
	default: // all of it is what donors decided
		f.Kind, f.Next = controlv1.Kind_KIND_REFUSED, "ask them why (gotong drop --undo takes you back), or invite others: gotong peers"
	}
	if few.Of > 0 && errors.Is(few, storage.ErrTooFewShards) && len(groups[badData]) > 0 && !mayReturn(groups) {
		f.Kind = controlv1.Kind_KIND_CORRUPT
		f.Meaning = "all who should have it answered, and too little of it is whole: what needs this segment cannot be restored"
		f.Next = "gotong check, which names what is hit; gotong backup of the same paths stores anew what is still on this disk"
	}
	return f
}

// mayReturn reports whether peers of some group may have good shards, and help
// later.
func mayReturn(groups map[string][]grid.PeerID) bool {
	for word := range groups {
		if word != badData && word != withoutIt {
			return true
		}
	}
	return false
}

// refusalOf returns what one holder said for whom this owner has enough there,
// or is to have nothing: the others' words differ in the numbers only.
func refusalOf(few *segments.TooFewError) (grid.PeerID, string) {
	for _, cause := range few.Causes {
		if err := cause.Err; errors.Is(err, storage.ErrQuota) || errors.Is(err, storage.ErrDenied) {
			var named *storage.Error
			for errors.As(err, &named) && named.Err != nil {
				err, named = named.Err, nil
			}
			if err != storage.ErrQuota && err != storage.ErrDenied { // else there is no more to say
				return cause.Peer, validText(err.Error())
			}
		}
	}
	return grid.PeerID{}, ""
}

// fewKind returns which of the two kinds it is, without the causes: one of them
// may be an error that is explained otherwise.
func fewKind(few *segments.TooFewError) error {
	if errors.Is(few, storage.ErrTooFewShards) {
		return storage.ErrTooFewShards
	}
	return storage.ErrTooFewPeers
}

// reasonsOf sorts the peers that did not help by the reason.
func reasonsOf(few *segments.TooFewError) map[string][]grid.PeerID {
	groups := map[string][]grid.PeerID{}
	for _, id := range few.Missing {
		word := reasonOf(few, id)
		groups[word] = append(groups[word], id)
	}
	return groups
}

func reasonOf(few *segments.TooFewError, id grid.PeerID) string {
	word := missing
	for _, cause := range few.Causes {
		if cause.Peer != id {
			continue
		}
		for _, reason := range reasons {
			if slices.ContainsFunc(reason.is, func(target error) bool { return errors.Is(cause.Err, target) }) {
				return reason.word
			}
		}
		if errors.Is(cause.Err, storage.ErrNotFound) || errors.Is(cause.Err, storage.ErrDeleted) {
			word = withoutIt
		}
	}
	return word
}

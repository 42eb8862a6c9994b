package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gotong/grid"
	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
)

// undoAll and undoNone are values of --undo-removals that name no device.
const (
	undoAll  = "all"
	undoNone = "none"
)

// undoWhich says whose removals are taken back: what the flag says, else what the
// user says on the terminal. Without either nothing is, which is no way to go on
// when nobody else is left.
func (a *app) undoWhich(flag string, found []node.DoubtfulDevice, needed bool) ([]grid.PeerID, error) {
	switch {
	case flag == undoNone:
		return nil, nil
	case flag != "":
		return chosenDevices(flag, found)
	}
	if !a.json {
		a.printDoubtful(found)
	}
	if !isTerminal(a.stdin) {
		if needed {
			return nil, &node.Failure{Kind: controlv1.Kind_KIND_REFUSED, What: "nobody is left to recover from: " + doubtfulText(found),
				Meaning: "nothing was changed; friends still have what they keep for you", Next: "if that was not you: the same command with --undo-removals"}
		}
		if !a.json {
			fmt.Fprint(a.stderr, "They stay removed. If that was not you: the same command in another home with --undo-removals\n")
		}
		return nil, nil
	}
	if err := a.ask("Was that somebody else, and is it to be taken back, with the devices that signed it?"); err != nil {
		if needed {
			return nil, err
		}
		return nil, nil
	}
	return chosenDevices(undoAll, found)
}

// chosenDevices reads the flag: all, or names and beginnings of ids.
func chosenDevices(flag string, found []node.DoubtfulDevice) (out []grid.PeerID, err error) {
	for _, d := range found {
		if flag == undoAll {
			out = append(out, d.Device)
		}
	}
	if flag == undoAll {
		return out, nil
	}
	for _, word := range strings.Split(flag, ",") {
		i := slices.IndexFunc(found, func(d node.DoubtfulDevice) bool {
			return word != "" && (d.Name == word || len(word) >= 8 && strings.HasPrefix(d.Device.String(), word))
		})
		if i < 0 {
			return nil, &node.Failure{Kind: controlv1.Kind_KIND_USAGE, What: fmt.Sprintf("no device of yours called %q removed anybody lately", word),
				Meaning: "nothing was changed", Next: "gotong recover --undo-removals=all, or an id of 8 characters or more"}
		}
		out = append(out, found[i].Device)
	}
	return out, nil
}

// maxDoubtful removals are named in one line.
const maxDoubtful = 5

func doubtfulText(found []node.DoubtfulDevice) string {
	var devices []string
	for _, d := range found {
		var who []string
		for _, r := range d.Removals[:min(len(d.Removals), maxDoubtful)] {
			who = append(who, printable(r.Who))
		}
		if more := len(d.Removals) - len(who); more > 0 {
			who = append(who, fmt.Sprintf("%d more", more))
		}
		if len(who) == 0 {
			who = []string{"those whom it let in, by contradicting itself"}
		}
		devices = append(devices, "your device "+printable(d.Name)+" removed "+strings.Join(who, ", "))
	}
	return strings.Join(devices, "; ")
}

// printDoubtful lists what is to be decided about.
func (a *app) printDoubtful(found []node.DoubtfulDevice) {
	fmt.Fprint(a.stderr, "Your other devices signed this lately:\n")
	for _, d := range found {
		for _, r := range d.Removals {
			what, by := "removed "+printable(r.Who), ""
			if r.Owner {
				what += ", with all peers of that owner"
			}
			if r.Through != "" {
				by = " through " + printable(r.Through) + ", whom it let in,"
			}
			fmt.Fprintf(a.stderr, "  %s  %s (%.8s)%s %s\n", r.When.Format(time.DateTime), printable(d.Name), d.Device.String(), by, what)
		}
		if d.Forked {
			fmt.Fprintf(a.stderr, "  %s (%.8s) signed two different statements under one number\n", printable(d.Name), d.Device.String())
		}
	}
}

type doubtfulJSON struct {
	Device   string        `json:"device"`
	Name     string        `json:"name"`
	Forked   bool          `json:"forked"`
	Removals []removalJSON `json:"removals"`
}

type removalJSON struct {
	Who     string    `json:"who"`
	Owner   bool      `json:"owner"`
	Through string    `json:"through,omitempty"`
	When    time.Time `json:"when"` // friends learnt it
}

func newDoubtfulJSON(found []node.DoubtfulDevice) []doubtfulJSON {
	out := []doubtfulJSON{}
	for _, d := range found {
		j := doubtfulJSON{Device: d.Device.String(), Name: d.Name, Forked: d.Forked, Removals: []removalJSON{}}
		for _, r := range d.Removals {
			j.Removals = append(j.Removals, removalJSON{r.Who, r.Owner, r.Through, r.When.UTC()})
		}
		out = append(out, j)
	}
	return out
}

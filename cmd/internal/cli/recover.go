package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gotong/cmd/internal/config"
	"gotong/grid"
	"gotong/grid/invite"
	"gotong/grid/node"
)

const maxSheetFileBytes = 64 << 10 // a printed sheet with its QR code

func (a *app) recoverCommand() *cobra.Command {
	var phraseFile, sheetFile, undo string
	var p node.RecoverParams
	c := &cobra.Command{
		Use:   "recover [CODE | PEERID@HOST:PORT]",
		Short: "Come back on an empty machine with the recovery phrase",
		Long: `Recover makes a new peer in an empty home for an owner who is a member of the
grid already. It needs the recovery phrase, and one friend to ask: an invite code
(which it does not use up), the id and an address of any friend's peer, or a
recovery sheet, which has both. It finds the owner's vaults, continues the newest
one that no other device of the owner writes, and lists the others. The device
that wrote it before is refused from then on, but stays a member of the grid, with
what it keeps for others; if it is lost or in other hands, --remove-old takes it out
too. After a kill run it again.`,
		Example: `  gotong recover v7qk…@friend.example:4114 --phrase-file phrase.txt
  gotong recover --sheet sheet.txt
  gotong recover gotong1aebag… --vault 3f2a9c
  gotong recover v7qk…@friend.example:4114 --undo-removals`,
		Args: maximumArgs(1),
	}
	addPeerFlags(c)
	c.Flags().StringVar(&phraseFile, "phrase-file", "", "file with your recovery phrase, - for standard input (default: ask)")
	c.Flags().StringVar(&sheetFile, "sheet", "", "file with the text of a recovery sheet or what its QR code says, - for standard input")
	c.Flags().StringVar(&p.Vault, "vault", "", "id of the vault to continue, or its beginning, even if its device is up")
	c.Flags().Uint64Var(&p.Head, "head", 0, "go on from an older state of the vault: the number of its head (default the newest)")
	c.Flags().BoolVar(&p.RemoveOld, "remove-old", false, "take the device that wrote the vault out of the grid, for good")
	c.Flags().StringVar(&undo, "undo-removals", "", "take back the removals that your other devices signed lately: all, none, or names or ids of devices")
	c.Flags().Lookup("undo-removals").NoOptDefVal = undoAll
	c.Flags().DurationVar(&p.UndoWithin, "undo-within", 0, "how long ago friends learnt of them at most (default: retention.floor)")
	c.Flags().BoolVar(&p.WriteOnly, "write-only", false, writeOnlyUsage)
	c.RunE = func(c *cobra.Command, args []string) error {
		if phraseFile == "-" && sheetFile == "-" {
			return usageError(c, errors.New("the sheet and the phrase cannot both come from standard input"))
		}
		if err := a.whomToAsk(c, args, sheetFile, &p); err != nil {
			return err
		}
		var err error
		if p.Config, err = a.setUpConfig(c); err != nil {
			return err
		}
		if phraseFile != "" || p.Phrase == "" {
			if p.Phrase, err = a.readPhrase(phraseFile); err != nil {
				return err
			}
		}
		if p.UndoWithin < 0 {
			return usageError(c, errors.New("--undo-within is negative"))
		}
		p.Save = config.Save
		p.Undo = func(found []node.DoubtfulDevice, needed bool) ([]grid.PeerID, error) {
			return a.undoWhich(undo, found, needed)
		}
		found, err := node.Recover(c.Context(), a.home, p)
		if err != nil {
			if printing := a.printVaults(a.stderr, found.Vaults); printing != nil {
				return printing
			}
			return err
		}
		return a.printRecovered(found)
	}
	return c
}

// whomToAsk reads who is to be asked from the argument or the sheet, and the
// phrase from the sheet.
func (a *app) whomToAsk(c *cobra.Command, args []string, sheetFile string, p *node.RecoverParams) error {
	if sheetFile != "" {
		text, err := a.readText(sheetFile, maxSheetFileBytes)
		if err != nil {
			return usageError(c, fmt.Errorf("cannot read the sheet: %w", err))
		}
		sheet, err := invite.ParseSheet(text)
		if err != nil {
			return usageError(c, err)
		}
		p.Grid, p.Phrase = sheet.Grid, sheet.Phrase.String()
		for _, m := range sheet.Members {
			p.Contacts = append(p.Contacts, node.Contact{Peer: m.Peer, Addresses: m.Addresses})
		}
	}
	if len(args) == 0 {
		if len(p.Contacts) == 0 {
			return usageError(c, errors.New("whom to ask? give an invite code, PEERID@HOST:PORT of a friend, or --sheet FILE"))
		}
		return nil
	}
	if id, address, ok := strings.Cut(args[0], "@"); ok {
		peer, err := grid.ParsePeerID(id)
		if err != nil {
			return usageError(c, err)
		}
		p.Contacts = append([]node.Contact{{Peer: peer, Addresses: strings.Split(address, ",")}}, p.Contacts...)
		return nil
	}
	code, err := invite.ParseCode(args[0])
	if err != nil {
		return usageError(c, err)
	}
	p.Grid = code.Grid
	p.Contacts = append([]node.Contact{{Peer: code.Inviter, Addresses: code.Addresses}}, p.Contacts...)
	return nil
}

type vaultJSON struct {
	Vault      string     `json:"vault"`
	Host       string     `json:"host"`
	Newest     *time.Time `json:"newest"` // null: no snapshot, or it cannot be told
	Snapshots  int        `json:"snapshots"`
	AgeSeconds int64      `json:"age_seconds"` // of the newest snapshot, else of the newest head
	Head       uint64     `json:"head"`
	State      uint64     `json:"state"` // number of the head that was read; 0: none could be
	Device     string     `json:"device"`
	DeviceName string     `json:"device_name"`
	DeviceUp   bool       `json:"device_up"`
	Problem    string     `json:"problem,omitempty"`
	Adopted    bool       `json:"adopted"`
	Removed    bool       `json:"removed"` // the device is no member any more
}

func newVaultJSON(v node.FoundVault) vaultJSON {
	out := vaultJSON{Vault: v.ID.String(), Host: v.Host, Snapshots: v.Snapshots, AgeSeconds: int64(vaultAge(v).Seconds()), Head: v.Head, State: v.State,
		Device: v.Writer.String(), DeviceName: v.Name, DeviceUp: v.Alive, Problem: v.Problem, Adopted: v.Adopted, Removed: v.Removed}
	if !v.Newest.IsZero() {
		newest := v.Newest.UTC()
		out.Newest = &newest
	}
	return out
}

func vaultAge(v node.FoundVault) time.Duration {
	if v.Newest.IsZero() {
		return time.Since(v.Made)
	}
	return time.Since(v.Newest)
}

func (a *app) printRecovered(found node.Recovered) error {
	if a.json {
		out := struct {
			Vaults   []vaultJSON    `json:"vaults"`
			Peer     string         `json:"peer"`
			Owner    string         `json:"owner"`
			Grid     string         `json:"grid"`
			Answered int            `json:"answered"`
			Members  int            `json:"members"`
			Undone   []doubtfulJSON `json:"undone"`
			Dropped  []string       `json:"dropped"` // no members any more: an undone device had let them in
		}{[]vaultJSON{}, found.Peer.String(), found.Owner.String(), found.Grid.String(), found.Answered, found.Members, newDoubtfulJSON(found.Undone), found.Dropped}
		if out.Dropped == nil {
			out.Dropped = []string{}
		}
		for _, v := range found.Vaults {
			out.Vaults = append(out.Vaults, newVaultJSON(v))
		}
		return a.printJSON(out)
	}
	fmt.Fprintf(a.stdout, "Peer   %s\nOwner  %s\nGrid   %s (%s)\nHome   %s\n\n", found.Peer, found.Owner, found.Grid, printable(found.GridName), a.home)
	if err := a.printVaults(a.stdout, found.Vaults); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "\n%d of %s answered.", found.Answered, countText(uint64(found.Members), "friend", "friends"))
	if found.Answered < found.Members {
		fmt.Fprint(a.stdout, " One who did not may know a newer state: look at the time of the newest snapshot.")
	}
	for _, d := range found.Undone {
		fmt.Fprintf(a.stdout, "\nTaken back: what %s (%.8s) signed, from its first removal on; it is no member any more.", printable(d.Name), d.Device.String())
	}
	if len(found.Dropped) > 0 {
		fmt.Fprintf(a.stdout, "\nNo members any more, because it let them in: %s. Invite again whom you know.", printable(strings.Join(found.Dropped, ", ")))
	}
	for _, v := range found.Vaults {
		switch {
		case v.Adopted && v.Removed:
			fmt.Fprintf(a.stdout, "\nThis device continues vault %s. %s (%.8s), which wrote it before, is no member of the grid any more; friends learn it when this peer is up.\n",
				v.ID.Short(), printable(v.Name), v.Writer.String())
		case v.Adopted:
			fmt.Fprintf(a.stdout, "\nThis device continues vault %s. Friends take no more from %s (%.8s), but it is still a member; if it is lost, take it out: gotong remove %.8s\n",
				v.ID.Short(), printable(v.Name), v.Writer.String(), v.Writer.String())
		}
	}
	fmt.Fprint(a.stdout, "\nNext: gotong up, then gotong snapshots and gotong restore latest --target DIR\n      gotong snapshots --all shows what newer states left out\n")
	return nil
}

// printVaults shows what was found; nothing when nothing was.
func (a *app) printVaults(w io.Writer, vaults []node.FoundVault) error {
	if len(vaults) == 0 || a.json && w == a.stderr {
		return nil
	}
	return writeTable(w, "VAULT\tHOST\tSNAPSHOTS\tNEWEST\tAGE\tHEAD\tWRITTEN BY\t", func(w io.Writer) {
		for _, v := range vaults {
			host, newest, note := v.Host, "-", ""
			if host == "" {
				host = "-"
			}
			if !v.Newest.IsZero() {
				newest = v.Newest.Format(time.DateTime)
			}
			switch {
			case v.Adopted:
				note = "continued here"
			case v.Problem != "":
				note = v.Problem
			case v.Alive:
				note = "its device is up"
			}
			fmt.Fprintf(w, "%.12s\t%s\t%d\t%s\t%s\t%d\t%s\t%s\n", v.ID, printable(host), v.Snapshots, newest, vaultAge(v).Round(time.Second), v.Head, printable(v.Name), printable(note))
		}
	})
}

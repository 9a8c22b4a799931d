package attest

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
)

// The parts of SPDX 2.3 in JSON that a list of packages needs (https://spdx.github.io/spdx-spec/v2.3).
type (
	spdxDocument struct {
		SPDXVersion       string       `json:"spdxVersion"`
		DataLicense       string       `json:"dataLicense"`
		SPDXID            string       `json:"SPDXID"`
		Name              string       `json:"name"`
		DocumentNamespace string       `json:"documentNamespace"`
		CreationInfo      spdxCreation `json:"creationInfo"`
		Packages          []spdxPack   `json:"packages"`
		Relationships     []spdxRel    `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPack struct {
		Name             string    `json:"name"`
		SPDXID           string    `json:"SPDXID"`
		VersionInfo      string    `json:"versionInfo,omitempty"`
		Supplier         string    `json:"supplier,omitempty"`
		DownloadLocation string    `json:"downloadLocation"`
		FilesAnalyzed    bool      `json:"filesAnalyzed"`
		SourceInfo       string    `json:"sourceInfo,omitempty"`
		LicenseConcluded string    `json:"licenseConcluded"`
		LicenseDeclared  string    `json:"licenseDeclared"`
		LicenseComments  string    `json:"licenseComments,omitempty"`
		CopyrightText    string    `json:"copyrightText"`
		ExternalRefs     []spdxRef `json:"externalRefs"`
	}
	spdxRef struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxRel struct {
		Element string `json:"spdxElementId"`
		Related string `json:"relatedSpdxElement"`
		Type    string `json:"relationshipType"`
	}
)

const noAssertion = "NOASSERTION"

// Document writes packages as a bill of materials in SPDX 2.3, made at a time.
func Document(packages []Package, at time.Time) ([]byte, error) {
	doc := spdxDocument{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT", Name: "sbom",
		CreationInfo: spdxCreation{Created: at.UTC().Format(time.RFC3339), Creators: []string{"Organization: Berth", "Tool: berth"}},
		Packages:     []spdxPack{}, Relationships: []spdxRel{},
	}
	for i := range packages {
		p := &packages[i]
		url := p.URL()
		name := p.Name
		if p.Space != "" && p.Distro == "" && p.Type != "deb" && p.Type != "apk" {
			name = p.Space + "/" + p.Name
		}
		e := spdxPack{
			Name: name, SPDXID: "SPDXRef-Package-" + p.Type + "-" + digest.FromString(url).Encoded()[:16], VersionInfo: p.Version, DownloadLocation: noAssertion,
			LicenseConcluded: noAssertion, LicenseDeclared: noAssertion, CopyrightText: noAssertion, SourceInfo: "found in " + p.Found,
			ExternalRefs: []spdxRef{{"PACKAGE-MANAGER", "purl", url}},
		}
		if p.Supplier != "" {
			e.Supplier = "Person: " + p.Supplier
		}
		if p.License != "" { // in the package's own words, which need not be SPDX's
			e.LicenseComments = "the package says: " + p.License
		}
		doc.Packages = append(doc.Packages, e)
		doc.Relationships = append(doc.Relationships, spdxRel{"SPDXRef-DOCUMENT", e.SPDXID, "DESCRIBES"})
	}
	raw, err := json.Marshal(doc.Packages)
	if err != nil {
		return nil, err
	}
	doc.DocumentNamespace = "https://spdx.org/spdxdocs/berth-" + digest.FromBytes(raw).Encoded() + "-" + strconv.FormatInt(at.Unix(), 10)
	return json.MarshalIndent(doc, "", "  ")
}

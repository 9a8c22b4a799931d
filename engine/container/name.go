package container

import (
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"

	"berth/base/fault"
)

var validName = regexp.MustCompile(`^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// CleanName checks a name that a client gave and takes its leading slash away.
func CleanName(name string) (string, error) {
	if !validName.MatchString(name) {
		return "", fault.New(fault.Invalid, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return strings.TrimPrefix(name, "/"), nil
}

// RandomName makes a name for a container that got none: a trait and a person of seafaring or science. From the second attempt on
// it has a digit, from the sixth three.
func RandomName(attempt int) string {
	name := traits[rand.IntN(len(traits))] + "_" + people[rand.IntN(len(people))]
	switch {
	case attempt > 5:
		return name + strconv.Itoa(100+rand.IntN(900))
	case attempt > 0:
		return name + strconv.Itoa(rand.IntN(10))
	}
	return name
}

var traits = strings.Fields(`able agile airy amber amiable ample apt ardent azure balmy blithe bold brave breezy bright brisk calm candid
	careful cheery civil clear clever coastal comely coral cosy crisp curious daring dapper deft direct drifting dry eager early earnest easy
	elated even fair faithful famous fearless fine firm fleet floating fluent fond frank free fresh gallant gentle giving glad golden good
	graceful grand happy hardy hearty helpful honest humble intrepid ivory jolly jovial keen kind lasting level light lively loyal lucid
	lucky maritime mellow merry mild mindful modest moored neat nimble noble noted open patient placid plain polite prime proud quick quiet
	ready robust rosy sailing sedate serene sharp silver simple sincere sleek smooth snug sober solid sound spry stable steady still stout
	sturdy sunny sure swift tidal tidy tranquil trim true trusty upbeat vivid warm wary watchful wide willing windy wise witty worthy zealous`)

var people = strings.Fields(`abel agnesi amundsen anning archimedes aryabhata babbage baret barents bassi beaufort bell bering bernoulli
	bohr boole borg bougainville bowditch brahe brunel byrd cabot cartier cerf chandra cochrane columba cook cousteau cunard curie darwin
	davis diaz dijkstra drake earhart eiffel elcano ericson euclid euler faraday fermi feynman fisher fitzroy flinders franklin frobisher
	fulton galilei galois gama gauss germain goodall hadley halley hamilton harrison henson hertz hipparchus hopper hubble hudson humboldt
	huygens hypatia ibnbattuta jemison joule kalman kelvin kepler khayyam knuth kovalevskaya lagrange lamarr laplace leavitt leibniz lovelace
	lyell mackenzie magellan marconi maury maxwell mcclintock meitner mendel mercator mitchell nansen napier newton nightingale nobel
	noether nordenskiold ohm parry pascal pasteur peary piccard plimsoll pytheas ramanujan raman ride ritchie ross scott shackleton
	shannon slocum somerville stevin sverdrup tasman tereshkova tesla torres turing vancouver verrazzano vespucci volta wallis weddell
	wegener wilkins wren wu yonath zheng`)

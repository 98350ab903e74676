"""Texts of the conformance cases, written for this purpose: plain ones first, then what tokenizers stumble over."""

from __future__ import annotations

_KETTLE = (
    "Fill the kettle with fresh water up to the line marked 1.2 l, never beyond it. Close the lid until it clicks,"
    " then press the switch on the handle. The blue lamp glows while the water heats and goes out when the kettle"
    " has switched itself off, which takes about three minutes. Remove lime once a month: pour in half a litre of"
    " vinegar, wait for an hour and rinse twice. If the kettle was switched on without water, it turns itself off"
    " after ten seconds; let it cool down for a quarter of an hour before you use it again."
)
_BRIDGE = (
    "The old bridge over the Wern was built between 1587 and 1591 by the mason Veit Holm, whose mark can still be"
    " seen on the third pillar. It replaced a ferry that had carried salt and cloth for two hundred years. In the"
    " flood of March 1784 two of its seven arches fell; they were rebuilt in brick, because the quarry at Aldau had"
    " been closed. Trams crossed the bridge from 1902 until 1958. Since then it has been open to people on foot and"
    " to bicycles alone."
)
_BEES = (
    "A colony of bees needs about twenty kilograms of honey to live through the winter. In October the keeper"
    " narrows the entrance, so that mice stay out, and puts a strap around the hive against storms. The bees do not"
    " sleep: they sit in a ball around the queen and warm each other by trembling with the muscles of their wings."
    " In the middle of the ball it is 25 °C, at its edge about 10 °C. On the first mild day of February they fly"
    " out to clean themselves."
)
_BREAD = (
    "Stir 500 g of rye flour, 350 ml of warm water and a spoonful of salt into the sour dough. Let it rest under a"
    " damp cloth for four hours. Heat the oven to 240 °C and put a bowl of water on its floor. Bake the loaf for"
    " ten minutes, then turn the heat down to 190 °C and bake it for fifty minutes more. It is done when it sounds"
    " hollow as you knock on its bottom."
)
_BURN = (
    "Hold a burn under cool running water for twenty minutes. Do not use ice, which harms the skin further, and do"
    " not put butter or flour on the wound. Take off rings and watches before the hand swells. Cover the burn"
    " loosely with a clean cloth. A burn that is larger than the palm of the hand, or lies on the face, must be"
    " seen by a doctor."
)
_LIGHTHOUSE = (
    "The lighthouse of Skarn stands 31 metres high on a rock two miles off the coast. Its first lamp burned whale"
    " oil; in 1893 it was replaced by paraffin and in 1926 by an electric bulb no larger than a fist. Keepers were"
    " relieved every six weeks, if the sea allowed it. The longest wait, in the winter of 1911, lasted 73 days."
    " Ingrid Moe, who kept the light for nineteen years, was the last of them: since 1987 it has been run from the"
    " harbour office."
)
_BATTERY = (
    "The battery lasts for eight hours of use or about two weeks in standby. Charge it fully before the first use."
    " When the lamp beside the socket blinks red, less than ten per cent is left. Do not charge it below freezing"
    " point. After some five hundred charges it holds four fifths of what it held when it was new; a dealer can"
    " replace it for $49."
)

CASE_TEXTS: tuple[tuple[str, str], ...] = (
    ("How long does it take until the kettle switches itself off?", _KETTLE),
    ("What is used to remove lime?", _KETTLE),
    ("Who built the old bridge over the Wern?", _BRIDGE),
    ("When did trams cross the bridge?", _BRIDGE),
    ("Why were two arches rebuilt in brick?", _BRIDGE),
    ("How much honey does a colony need for the winter?", _BEES),
    ("How do the bees keep each other warm?", _BEES),
    ("At which temperature is the loaf baked first?", _BREAD),
    ("How long must a burn be held under water?", _BURN),
    ("Who was the last keeper of the light at Skarn?", _LIGHTHOUSE),
    ("what did the first lamp burn", _LIGHTHOUSE),
    ("What does a red blinking lamp mean?", _BATTERY),
    # A single token on one side or on both.
    ("Why?", "Because."),
    ("Where", "Rome"),
    ("?", "The switch is behind the grey panel."),
    # White space of all kinds, which spaCy makes tokens of.
    ("  Which   floor? ", "\n\nThe  office is\ton the\u00a0third floor.\r\n\r\nAsk at the desk.  "),
    ("Where do lines end?", "One line\u2028another\u2029and\u0085a third\x0bwith\x0ca feed\x1fand a unit."),
    # Contractions, abbreviations, emoticons, exceptions of the tokenizer.
    ("Who can't come?", "Mr. O'Neill can't come, he's ill :-( but Dr. Smith'll be there at 5p.m. (I'd've asked her.)"),
    ("what's left?", "y'all ain't gonna find nothin' 'cause we've 'em all... WE’LL SEE; don’t! :D xD <3 ¯\\_(ツ)_/¯"),
    # Addresses, numbers, units, dashes, hashes.
    (
        "What is the address?",
        "See https://example.org/a_(b)?q=1&r=%20#top, or mail to info@example.co.uk; www.example.com.",
    ),
    (
        "How much is it?",
        "It weighs 1,250.5kg—not 1.3t—and costs £3.50/kg, i.e. US$4,375 (≈€4 020,75) at ±5%, ver. 2.0.1-rc3.",
    ),
    ("Which part number?", 'Use #A-42/b_7 (not A42), M8×25mm, 10-20km/h, 6\'2", 3/4", C++, .NET, AT&T, e-mail, 24/7.'),
    # Other scripts, combining marks, right-to-left, full width, astral characters, joiners, variation selectors.
    (
        "Wo liegt Straße?",
        "Die Straße „Über den Höhen“ liegt in Österreich; naïve façade, Zürich, Ærøskøbing, İzmir, ŁÓDŹ.",
    ),
    (
        "What is the e\u0301 made of?",
        "Cafe\u0301 and Caf\u00e9 look alike, but e\u0301 is e and U+0301; Z\u0351\u0350a\u0316l\u0320go too.",
    ),
    (
        "谁住在东京?",
        "山田さんは東京に住んでいます。Он живёт в Москве. هو يسكن في القاهرة، وهي في دمشق؟ वह दिल्ली में रहता है।",
    ),
    ("Which emoji?", "👩‍👩‍👧‍👦 waved 👋🏽 under the 🏳️‍🌈 flag🇩🇪🇫🇷, 1️⃣ 2️⃣, ❤️‍🔥; 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 and ＡＢＣ１２３ too."),
    (
        "Is it hidden?",
        "zero\u200bwidth, soft\u00adhyphen, \u202eright to left\u202c, \ufeffmark, \u2060joiner, nul\x00l and \ufffd.",
    ),
    (
        "What is in quotes?",
        "“Well,” she said—‘never’—«jamais»… \"not\" ''once'' ``or`` twice?!?! (((really))) [sic] {so}...",
    ),
    # Longer than a word's characters, and nothing that a vocabulary knows.
    (
        "Which is the longest?",
        "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft beats " + "ab" * 60,
    ),
    ("zxqv blorp?", "Flirbu gronkt vzzt qwpl, mrrk 7x7x7 snarp-glib_klo ÞßðđŋħŧŦ zzzyx."),
)

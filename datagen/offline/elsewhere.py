"""The sentences of what the desk does not handle: other banking matters, each near some leaves, and everything else."""
# ruff: noqa: E501 - a line of the grammar is one pattern, however long

OTHER_BANKING: dict[str, tuple[tuple[str, ...], str]] = {
    "activating a card": (("cards/arrival", "cards/pin"), """
        <howdoi> activate (my|my new|the|a new) card?
        my new card (came|arrived|is here), (how do I activate it|do I need to activate it|what do I do to activate it)?
        (I can't|I cannot|unable to) activate my (new )(card|debit card)<help>
        (where|how) do cards get activated?
        card activation (fails|doesn't work|isn't working|how)?
        """),
    "ordering a card": (("cards/arrival", "cards/lost"), """
        <howdoi> (order|apply for|request|get) (a physical card|a second card|a spare card|an extra card|another card for my wife|a card for my son|a metal card|a credit card)?
        can I have (two|more than one|several|three) (cards|debit cards) on (my|one) account?
        (do you|can you) (send|ship|deliver) cards to (France|Poland|Australia|a PO box|another address|other countries|{place})?
        (how much|what) does a (second card|card|spare card|new physical card) cost?
        do you (have|offer) (Visa or Mastercard|Mastercard|Visa|American Express|credit cards)?
        my card (expires|is about to expire|runs out) (next month|soon|this month), (do I get a new one|what do I do|will you send another)?
        (can|could) (I choose|I change|you change) the (design|colour|name) (of|on) my card?
        what (colour|colours|designs) do your cards come in?
        """),
    "virtual and disposable cards": (("cards/arrival", "cards/contactless", "payments/declined"), """
        <howdoi> (get|make|create|use) a (virtual|disposable|one-time|temporary virtual) card?
        (what is a disposable virtual card|how many (disposable cards|virtual cards) can I have|is there a limit on virtual cards|how much do I pay for a virtual card)?
        can I (have|make|use) (several|more than one) (virtual|disposable) cards[ a day| in the app]?
        my virtual card (isn't showing|doesn't work|has no number|is missing in the app)
        """),
    "phone wallets": (("cards/contactless", "money/top_up_by_card"), """
        <howdoi> (add|link|connect|put) my card (to|with|in) (Apple Pay|Google Pay|my phone wallet|Samsung Pay|my watch)?
        (does|do) (your card|you|the bank|my card) (work with|support|offer) (Apple Pay|Google Pay|Samsung Pay|smart watches|Garmin Pay)?
        (Apple Pay|Google Pay) (won't|doesn't|will not) (accept|add|let me add|verify) my card[ on my new phone]
        can I use (Apple Pay|Google Pay|my phone|my watch) (to pay|for payments|in shops|abroad)?
        how do I set up (Apple Pay|Google Pay|a payment on my watch)?
        """),
    "finding or re-linking a card": (("cards/lost", "cards/stolen"), """
        I('ve| have| just) found my card again, (how do I unblock it|can I use it again|how do I unfreeze it|how do I link it to the app|can you reactivate it)?
        (my old card turned up|I found the card I thought was gone|my card was in my coat all along), (can I unblock it|how do I put it back in the app|how do I relink it|please unfreeze it)
        <howdoi> (unfreeze|unblock|relink|reactivate|put back into the app) (my|the) card[ I found]?
        <howdoi> link (my|an existing|an old|this) card (to|with|in) the app?
        """),
    "lost phone": (("cards/lost", "cards/stolen", "account/close"), """
        I('ve| have) lost my phone[, how do I get into my account|, how do I stop the app| and the app is on it|, what about my account]?
        (my phone was stolen|someone stole my phone|my mobile got nicked|my phone is gone), (how do I log in|can they use the app|can you log me out|how do I secure the app)?
        I (changed|have a new) (phone|mobile|number), (how do I move the app|how do I log in|how do I set up the app again)?
        """),
    "compromised details": (("cards/stolen", "cash/withdrawal_not_recognised"), """
        (I think|I'm afraid) (my card details|my details) (were|have been) (leaked|copied|compromised) (online|on a website|in a data breach)
        (I entered|I gave|I typed) my card details on a (fake|dodgy|suspicious) (site|website)[, what now]?
        I got a (text|call|e-mail|message) (saying it is from|pretending to be) (the bank|you|your bank)[, is it real|, is that a scam]?
        is this (e-mail|text message|link|caller) (really|truly) from (you|the bank)?
        """),
    "PIN blocked or app passcode": (("cards/pin", "account/verify_identity"), """
        my PIN is (blocked|locked)[ after three tries| now| because I typed it wrong]<help>
        (I've|I have) (typed|entered) (my|the) (wrong PIN|PIN wrong) (three times|too often|too many times)[ and it's blocked|, now it's locked|, how do I unblock it]
        <howdoi> (unblock|unlock) my PIN?
        (how many|what happens after too many) (wrong PIN tries|PIN attempts)( do I have| |)?
        where (do I find|can I see|is|do I get) my (PIN|card PIN|first PIN)[ in the app| for my new card]?
        (when will|how will) (you send|I get|I receive) (my|the) PIN[ for the new card]?
        I('ve| have)[ completely] (forgotten|lost) (my|the) (app passcode|passcode|password|login|log-in code)<help>
        <howdoi> (reset|change|recover) my (app passcode|passcode|password|login|online banking password)?
        (I can't|I cannot|unable to) (log in|log into the app|sign in|get into the app|access my account online)<help>
        """),
    "fees": (("cash/withdrawal_not_recognised", "money/exchange_rate", "payments/declined", "payments/cancel_transfer"), """
        (why was I|was I|I was|how come I was|why have I been) charged (a fee|extra|{amount} extra|£1 extra) (for|on|when) (a cash withdrawal|taking out cash|a card payment|using an ATM|a transfer|topping up|paying by card|my purchase abroad|withdrawing money)?
        (is there|are there|do you charge|what is|how much is) (a fee|any fees|any charge|fees|the fee) (for|on|when) (taking out cash|using an ATM|cash withdrawals|transfers|topping up|paying abroad|exchanging money|card payments|receiving money|international transfers|the account)?
        (why is there|there is|I see|what is) (an extra|a £1|an unexpected|a strange|a {amount}) (fee|charge) on my (statement|account|app)?
        what (do you charge|does it cost|are the fees|are the charges) (for|to) (a transfer abroad|withdraw cash|use a cash machine|exchange currencies|top up by card|send money|having an account)?
        (can|could) (you|I) (refund|get back|waive) (the|a|this) (fee|charge|overdraft fee|late fee)?
        do I (pay|have to pay) (a monthly fee|for the account|for my card|tax on interest)?
        the (fee|fees) for (transfers|cash|exchange|ATMs) (is|are|seems|seem) too high
        """),
    "limits": (("money/top_up_by_card", "money/top_up_by_transfer", "cash/withdrawal_not_recognised", "payments/declined", "cards/contactless"), """
        (what is|what's|is there|how high is|can I raise) (the|a|my) (limit|maximum|daily limit|monthly limit) (for|on) (top ups|topping up|cash withdrawals|contactless|card payments|transfers|my card)?
        how much (can I|am I allowed to) (top up|withdraw|send|spend|transfer|take out)[ a day| per month| at once| at most]?
        <howdoi> (raise|increase|change|lower|lift) my (limit|withdrawal limit|contactless limit|spending limit|overdraft limit)?
        (have I reached|I think I reached|did I hit) my (limit|top up limit|spending limit)?
        """),
    "how to top up": (("money/top_up_by_card", "money/top_up_by_transfer"), """
        <howdoi> top up (my account |)(with cash|by cheque|with a cheque|automatically|from abroad|with a gift card|by standing order)?
        <howdoi> (set up|turn on|turn off|stop) (auto top up|automatic top up|automatic top-ups)?
        (which|what) (cards|ways|methods) (can I use|are there|do you accept) (to top up|for topping up|for top ups)?
        (is (a top up|topping up) (free|instant|safe)|how long does (a top up|topping up) take)[ by transfer| by card]?
        (my|the) (top up|top-up) is (still pending|pending|being checked|on hold)[, how long does that take| since {ago}]
        where do I find the (code|reference|number) to (verify|check) my top-up card?
        (why do I need to|how do I) verify my top-up card?
        """),
    "balance and deposits": (("payments/refund", "money/top_up_by_transfer"), """
        my balance (hasn't|has not|didn't) (changed|updated|gone up|update) (after|since) (a cash deposit|a cheque deposit|I paid in a cheque|I paid in cash|a bank transfer came in|I deposited money)
        (I deposited|I paid in) (a cheque|cash|{amount} in cash)[ {ago}] (and|but) (my balance is the same|it's not showing|it hasn't been added|I can't see it)
        (how long does (a cheque|a cash deposit) take to (clear|show up)|when will (my cheque|the cash I paid in) (clear|show up|be available))?
        (how do|can|where do) I (pay in|deposit) (a cheque|cash|coins|foreign money)?
        (how do I|where do I|can I) (check|see|view) my balance[ by text| in the app| at an ATM]?
        """),
    "receiving money": (("payments/cancel_transfer", "money/top_up_by_transfer"), """
        (has|when will|why hasn't) my (salary|wages|pension|benefit)( been paid| come in| arrive| arrived|)[ yet]?
        (can|how do) I (get|have|receive) (my salary|my wages|my pension|money from abroad) (paid |sent |)(in|into|to) (this|my) account?
        (what is|where do I find|what's) my (IBAN|account number|sort code|BIC|SWIFT code)?
        someone (is sending|wants to send|will send) me money, what (details|do they need|do I give them)?
        (I'm|I am) waiting for money from (my employer|a friend|abroad|my mum)[, when does it come]
        """),
    "transfers late, failed or pending": (("payments/cancel_transfer", "payments/declined", "payments/refund"), """
        my transfer (is|has been|is still) (pending|stuck|delayed|on hold|processing)[ since {ago}| for {span}]<help>
        (why is|how long will|when will) (my transfer|my bank transfer) (still pending|be pending|arrive|take|be done|taking so long|go through)?
        (the person|my friend|my landlord|the recipient|my mother) (hasn't|has not|still hasn't|did not) (received|get|got|had) (the transfer|my transfer|the money I sent|the {amount} I sent)[ {ago}| yet]
        (why did|why was|how come) (my|the) (transfer|bank transfer) (fail|declined|refused|rejected|not go through)?
        my (transfer|bank transfer) (failed|was declined|was rejected|didn't arrive|won't go through)[ {ago}]<help>
        how long (does|do) (a transfer|transfers|an international transfer|a transfer to {place}|a SEPA transfer) take?
        (it says|the app says) (the beneficiary|the recipient|this payee) is not allowed
        I can't (send money|make a transfer|transfer money) to (my friend|this payee|an account abroad|a new payee)
        <howdoi> (make|send|set up) a (transfer|bank transfer|payment) (abroad|to a friend|to {place}|to another bank|in {currency})?
        """),
    "direct debits and standing orders": (("payments/cancel_transfer", "payments/refund", "cash/withdrawal_not_recognised"), """
        <howdoi> (set up|create|change|start|cancel|stop) a (direct debit|standing order)?
        (there is|I see|I found) a direct debit I (don't recognise|didn't set up|never agreed to)
        (what is|why is there|who set up) this direct debit[ of {amount}| on my account]?
        my (direct debit|standing order) (didn't go out|bounced|was returned|hasn't been paid)[ {ago}]
        <howdoi> (cancel|stop) my (subscription|Netflix subscription|gym membership|mobile contract)?
        """),
    "card payments wrong or strange": (("cash/withdrawal_not_recognised", "payments/declined", "payments/refund", "payments/cancel_transfer"), """
        (there is|I see|I have|what is|I found|I noticed) (a|this) (card payment|purchase|charge from {merchant}|payment to {merchant}|online payment|payment) (I don't recognise|I didn't make|I never made|that isn't mine|on my statement I don't know)
        I (don't|do not) (recognise|recognize|remember) (a|this|the) (card payment|purchase|payment to {merchant}|charge from {merchant}|online purchase)[ of {amount}| on my statement]
        I (was|have been|got) charged twice (for|by|at) (the same thing|one purchase|{merchant}|my order|dinner)<help>
        {merchant} (took|charged|has taken|charged me) (the wrong amount|too much|{amount} too much|double|twice)
        my (card payment|payment|purchase)[ at {merchant}] is (still pending|pending|on hold|not finished)[, why]?
        (why is|how long will) (my|a) (card payment|payment) (still pending|be pending|stay pending)?
        my (payment|card payment)[ at {merchant}] was (reversed|reverted|undone|sent back)[ {ago}], why?
        the (rate|exchange rate) (on my purchase|for my payment in {place}|on my card payment abroad|for my cash withdrawal abroad|when I took cash out in {place}) (was wrong|is wrong|is not what I was told|was incorrect)
        (you|the bank) (applied|used|charged) the wrong (rate|exchange rate) (for my purchase|on my payment|for my cash|when I withdrew cash)[ in {place}]
        """),
    "asking a shop for money back": (("payments/refund", "payments/cancel_transfer"), """
        (how do I|can I|is it possible to|I'd like to) (request|ask for|claim|demand) a (refund|chargeback)[ from {merchant}| from a shop| for something I bought]?
        I (want|would like) (my money back|a refund|a chargeback) (for|because) (an item that is broken|something I bought|goods I never got|{merchant} sent the wrong thing|my order never came)
        the (shop|seller|restaurant|website) (won't|refuses to|will not) (refund|give me my money back|take the item back)
        I (ordered|bought) something from {merchant} and it (never came|was broken|is fake)[, can you get my money back]?
        can I (cancel|return|undo) (a purchase|a card payment|an order) (I made |)[ at {merchant}| in a shop]?
        """),
    "cash machines": (("cash/withdrawal_not_recognised", "cards/lost", "payments/declined"), """
        (the|an|a) (ATM|cash machine|cashpoint) (swallowed|ate|kept|took|has kept|won't give back|retained) my card[ {ago}| in {place}]<help>
        my card (is stuck|got stuck|was swallowed|was eaten|got swallowed) (in|by) (the|an|a) (ATM|machine|cash machine)[ {ago}]
        (the|an) (ATM|cash machine) (gave me|paid out) (the wrong amount|too little|less than I asked|only part of the cash|{amount} less|no money)[ in {place}]<help>
        I (asked for|wanted) {amount} (and|but) (only got|the machine gave me only) {amount}
        (where is the nearest|is there a nearby) (ATM|cash machine|cashpoint)?
        which (ATMs|cash machines) (can I use|are near me|accept my card)?
        (can I|how do I|where can I) (withdraw cash|take out money|get cash)( abroad| in {place}| with your card| in a post office|)?
        my (cash withdrawal|withdrawal) (is|was|got|has been) (declined|refused|still pending|pending|rejected)[ in {place}| {ago}]<help>
        (the ATM|the cash machine) (wouldn't|won't|didn't) (give me cash|let me withdraw|let me take out money|pay out)
        """),
    "supported cards, currencies and countries": (("money/exchange_rate", "money/top_up_by_card", "cards/contactless"), """
        (which|what) (currencies|countries|cards) (do you support|are supported|does the card work in|do you accept|can I hold)?
        (can I|do you let me|is it possible to) (hold|have|keep|exchange|receive) {currency} in (my|the) (account|app)?
        (do you|does your bank) (work|operate|support customers) in {place}?
        (where|in which shops|in which countries) (can I use my card|is your card accepted|do they accept this card|does my card work)?
        (does|will|is) (my|the) card (work|accepted|be accepted) (in {place}|abroad|everywhere|at {merchant})?
        can I (exchange|change|swap|convert|buy) (money|currencies|pounds for {currency}|{currency}) (in the app|with you|at a branch)?
        do you (have|offer) (a euro account|an account in {currency}|multi-currency accounts|travel money)?
        """),
    "personal details and age": (("account/verify_identity", "account/close"), """
        <howdoi> (change|update|edit|correct) my (address|name|phone number|e-mail address|personal details|surname|contact details)?
        I (moved|got married|have a new address|changed my name|have a new number)[ {ago}], (how do I update my details|how do I change my address|what should I tell you|how do I change my name)?
        (how old|what age) (do I|must I|do you|does my child) (have to be|need to be|be) (to open an account|for an account|to get a card)?
        (can|could) (my child|my daughter|my son|a 16-year-old|children|teenagers) (have|open|get) (an account|a card|their own account)?
        <howdoi> open (an account|a joint account|a second account|a business account|an account for my child|a savings account)?
        (where does|why do you ask where) my money (come from|comes from)?
        how do I (prove|show) (where my money comes from|the source of my funds)?
        """),
    "loans, savings and others": (("account/close", "money/exchange_rate", "account/verify_identity"), """
        (what|how high) (is|are) (your|the) (mortgage rate|mortgage rates|interest rate|interest rates|savings rate|loan rates|interest on savings)[ today| at the moment]?
        (can|could|how do) I (get|apply for|take out|have) a (loan|mortgage|credit card|overdraft|personal loan|car loan)[ with you]?
        <howdoi> (apply for|increase|pay off|extend) (a loan|my overdraft|my mortgage|my loan early|a car loan)?
        (what is|why did|how do I improve) my credit (score|rating)( go down| |)?
        <howdoi> (get|download|print|see|order) (a statement|my bank statements|an annual statement|proof of balance|my transaction history)?
        (do you|does the bank) (offer|sell|have) (travel insurance|home insurance|pensions|investment accounts|shares|crypto|ISAs|joint accounts)?
        (when|what time) (do you|does the branch|is the branch) (open|close|open on Saturday)?
        where is (your|the) (nearest branch|head office|closest branch)?
        how do I (speak to|reach|complain to|call) (a human|a manager|customer service|someone about my mortgage)?
        I (want|would like) to (make a complaint|speak to a manager|order a cheque book|buy shares|invest money|open a pension)
        my (cheque book|mortgage offer|statement|loan decision) (hasn't come|is late|isn't here yet|has not arrived)
        the app (crashes|is slow|won't open|freezes|doesn't load|keeps logging me out)<help>
        how do I (turn on|turn off|change) (notifications|dark mode|alerts|the language of the app)?
        what (savings accounts|interest|bonus|cashback) do you (offer|pay)?
        """),
}  # fmt: skip

NOT_BANKING = """
    (what's|what is|how is|what will) the weather( like| going to be|)[ in {place}| today| tomorrow| this weekend]?
    (will|is) it (rain|snow|be sunny|going to rain|be hot|be cold)[ in {place}] (tomorrow|this weekend|today|next week)?
    (tell|give|write) me a (joke|riddle|story|limerick|fun fact|bedtime story)[ about (cats|dogs|banks|pirates|a dragon|school)| please]
    (can you |please |)(write|compose) (a poem|a song|an essay|a short story|a love letter|a birthday message) (about|for|on) (spring|my mother|cats|the sea|climate change|my boss|friendship|football)
    how do I (cook|bake|make|fry|boil) (an omelette|a chocolate cake|pancakes|rice|a lasagne|bread|scrambled eggs|a curry|sourdough)?
    (what's|give me|do you have) a (good |simple |quick |)recipe for (pancakes|lentil soup|banana bread|roast chicken|tomato sauce|hummus)?
    (what can I cook with|how long do I boil) (two eggs|potatoes|chicken and rice|leftover pasta|carrots)?
    (who|what team) won (the World Cup|the league|Wimbledon|the match last night|the Oscars|the election)[ in 1966| in 2010| this year]?
    (what's|what is) the capital of (Peru|Mongolia|Kenya|Norway|Canada|{place})?
    (who (wrote Hamlet|invented the telephone|painted the Mona Lisa|discovered penicillin)|when was (the French Revolution|Napoleon born|the moon landing))?
    how (tall|high|old|far|deep) is (Mount Everest|the Eiffel Tower|the moon|the Pacific|Big Ben|the Great Wall)?
    (what|how much) is (17 times 23|the square root of 144|12 percent of 350|8 plus 15|pi to five digits)?
    (can you |please |)(solve|help me with|explain|do) (this equation|my maths homework|photosynthesis|quadratic equations|my history essay|the water cycle|gravity)
    (write|fix|debug|explain) (a Python function|my JavaScript code|this SQL query|a bash script|a regex|a for loop)( for sorting a list| that fails| please|)
    how do I (install|update|uninstall|reset) (Windows|Linux|my printer|my router|my laptop|Python|a game)?
    my (printer|laptop|washing machine|car|boiler|bike|dishwasher|television) (won't start|is broken|makes a strange noise|doesn't turn on|is leaking)[, what do I do]?
    (I have|my son has|my dog has|what helps against) (a headache|a sore throat|a cough|a fever|a rash|back pain|a cold)[, what should I take|, should I see a doctor]?
    (how many calories|how much protein|how much sugar) (is|are) (there |)in (a banana|an egg|an apple|rice|a slice of bread)?
    (recommend|suggest|can you recommend|what's) (a good|me a|the best) (film|book|restaurant in {place}|hotel in {place}|series|podcast|holiday in {place}|phone)( for kids| for tonight|)?
    (what are|which are) the best (beaches|museums|restaurants|sights|bars|walks) in {place}?
    (book|find|get) me a (flight to {place}|table for two|hotel in {place}|taxi|train to {place}|dentist appointment)[ please| for tomorrow]
    (what time|when) (does the train to {place} leave|is sunset|does the museum open|is the next bus|does {merchant} close|is the match)?
    (translate|how do you say|what is) (good morning|thank you|I love you|where is the station|cheers) in (French|Spanish|Japanese|German|Italian|Polish)?
    (how do I|what's the best way to) (learn Spanish|lose weight|get red wine out of a carpet|train a puppy|tie a tie|grow tomatoes|fall asleep|clean a kettle|iron a shirt|get a stain out)?
    (set|start) (an alarm|a timer|a reminder) (for|at) (seven|ten minutes|6 am|tomorrow morning|an hour)
    (play|put on) (some music|my playlist|the radio|jazz|the news|a song by the Beatles)
    (are you|who are you, are you|am I talking to) (a robot|a human|an AI|real|a computer)?
    (what's|tell me) your (name|favourite colour|age|favourite film|star sign)?
    (what's|what is) (the news today|in the news|new on Netflix|on television tonight|the meaning of life|happening in the world)?
    (my girlfriend|my boyfriend|my neighbour|my boss|my sister) (left me|is angry with me|is too loud|hates me|forgot my birthday)[, what should I do]?
    (when|how often) (should I|do I) (water my plants|walk my dog|feed my cat|change the oil|prune roses)?
    (should I|is it healthy to) (go vegan|drink coffee every day|run in the rain|buy a cat|skip breakfast|cut my hair)?
    (my parcel|my order|my package) from {merchant} (hasn't come|is late|is not here|was left in the rain)
    (does|do) {merchant} (sell batteries|deliver on Sundays|have any jobs|sell gift wrap|open on bank holidays)?
    my (library card|gym card|bus pass|passport|student card|loyalty card) (is lost|hasn't arrived|was stolen|has expired|doesn't work)[, what do I do]?
    (how do I|where can I) (renew my passport|change my flight|cancel my gym membership|return a library book|close my Facebook account|delete my Instagram|verify my Twitter account|change my WiFi password)?
    (I|we) (lost|can't find) (my keys|my glasses|the cat|my umbrella|the remote|my other sock)[ on the bus| in the park]
    (is|was) (Shakespeare|Einstein|Mozart|Cleopatra) (English|German|a vegetarian|left-handed|rich)?
    (how does|why does|what makes) (a rainbow form|the sky look blue|a plane fly|the moon shine|yeast work|ice float)?
    (what|which) (colour|size|present|dress|tie) (should I wear|should I get my mum|goes with green|suits me)[ tonight| for a wedding]?
    (help me|please help me) (write a CV|plan a birthday party|name my puppy|choose a laptop|write a speech|pack for {place})
    (who is|how old is) (the prime minister|the king|Taylor Swift|the pope|the president of France)?
    (spell|define|what does) (necessary|onomatopoeia|serendipity|rendezvous|ephemeral)( mean|)?
    (do you like|what do you think of) (pizza|Mondays|football|London|rap music|cats)?
    the (pizza|food|coffee|service) at {merchant} (was cold|was awful|was lovely|took ages)
    can (dogs|cats|rabbits|hamsters) eat (chocolate|grapes|cheese|bananas|rice)?
    how (many|much) (people live in {place}|planets are there|legs does a spider have|bones are in a hand|water should I drink)?
    I('m| am) (bored|sad|hungry|tired|lonely|in love)[, what should I do| today|, talk to me]
    (sing|rap|draw|paint) (me something|a song|a cat|about summer|happy birthday)
    (what|where) (is|are) (the nearest pharmacy|the toilets|a good park|the nearest petrol station|my car keys|the train station)[ in {place}]?
"""

EMPTY = (
    "hi", "hello", "hey", "hello?", "...", "?", "??", "Hi there", "good morning", "Good afternoon", "hello, anyone there?", "ok",
    "👍", "🙂", "😡😡", "👋", ".", "test", "hmm", "hey hey", "thanks", "Thank you!", "Good evening", "hello hello", "😀👍", "!!!",
    "-", "anyone?", "Hi!", "Yo", "morning", "Hello :)", "🤔", "ok thanks", "cheers", "ta", "bye", "….", "hi hi", "Dear bank",
    "Hello there", "Is anybody there?", "hi...", "Good day", "evening all", "um", "yes", "no", "oh", "right", "hello bank", "👀", "🙏🙏",
)  # fmt: skip

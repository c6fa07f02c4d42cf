"""The everyday vocabulary that the built-in student's pretraining text is made of: word lists by category, written by hand.

No list holds a word of the banking domain (`language.FORBIDDEN` says which, and the tests look).
"""

_KINDS = {
    "animal": """dog cat horse cow sheep goat pig chicken duck goose rabbit mouse rat hamster lion tiger bear wolf fox deer elephant giraffe zebra
        monkey whale dolphin shark seal penguin owl eagle sparrow crow parrot pigeon frog toad snake lizard turtle bee ant spider butterfly beetle
        worm snail salmon trout crab octopus squirrel hedgehog badger otter donkey camel kangaroo puppy kitten lamb calf moose bat robin swan""",
    "fruit": """apple pear plum peach cherry grape lemon lime orange banana melon mango strawberry raspberry blueberry pineapple apricot fig kiwi
        coconut grapefruit blackberry nectarine""",
    "vegetable": """carrot potato onion cabbage cucumber lettuce spinach broccoli pea bean leek garlic mushroom pumpkin radish beetroot celery
        aubergine cauliflower parsnip turnip""",
    "food": """bread cheese butter rice pasta soup salad sandwich pizza cake biscuit pie egg yoghurt honey jam cereal porridge omelette pancake
        sausage ham bacon stew curry burger toast noodle chocolate pudding muffin sugar salt pepper flour""",
    "drink": "water tea coffee milk juice lemonade cocoa cider smoothie soda wine beer",
    "clothing": """shirt jumper coat jacket dress skirt sock shoe boot hat scarf glove belt tie suit hoodie cardigan sandal trainer raincoat
        cap blouse vest apron helmet slipper""",
    "furniture": "table chair sofa bed desk shelf cupboard wardrobe drawer bench stool bookcase armchair mattress lamp mirror rug curtain",
    "kitchen thing": "fork spoon knife plate bowl cup mug glass pan pot kettle oven fridge freezer toaster tray jug dish sink cooker blender whisk",
    "tool": "hammer saw drill screwdriver ladder spade rake wrench brush axe shovel bucket hose scissors tape nail screw rope torch pliers",
    "vehicle": "car bus train tram bicycle scooter motorbike lorry van taxi plane helicopter boat ship ferry tractor ambulance lift truck canoe",
    "building": """house flat school library museum station airport hospital hotel church castle farm factory theatre cinema shop bakery market
        office garage tower bridge stadium gym restaurant cafe prison barn cottage palace hall clinic""",
    "body part": "head face eye ear nose mouth tooth tongue neck shoulder arm elbow hand finger thumb chest back stomach leg knee foot toe skin hair heart",
    "weather": "rain snow wind storm fog frost sunshine thunder hail cloud lightning breeze heatwave ice drizzle",
    "sport": "football tennis cricket rugby golf swimming running cycling rowing skiing hockey basketball boxing gymnastics sailing climbing",
    "instrument": "piano guitar violin drum flute trumpet harp cello clarinet organ recorder banjo saxophone",
    "job": """teacher doctor nurse farmer baker builder driver pilot cook waiter painter plumber electrician gardener dentist vet lawyer
        engineer scientist writer singer actor judge soldier sailor tailor butcher librarian mechanic carpenter journalist cleaner manager""",
    "relative": "mother father sister brother aunt uncle cousin grandmother grandfather daughter son nephew niece husband wife parent",
    "colour": "red blue green yellow purple brown black white grey pink orange silver gold",
    "shape": "circle square triangle rectangle oval star cube cone sphere",
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "month": "January February March April May June July August September October November December",
    "season": "spring summer autumn winter",
    "country": """France Spain Italy Germany Portugal Greece Poland Sweden Norway Denmark Finland Ireland Scotland Wales England Canada Mexico
        Brazil Chile Peru Japan China India Egypt Kenya Morocco Turkey Austria Hungary Iceland Australia Thailand Vietnam Croatia Cuba""",
    "language": "English French Spanish Italian German Polish Swedish Greek Arabic Japanese Chinese Hindi Turkish Welsh Dutch Russian Latin",
    "school subject": "maths history geography physics chemistry biology art music drama literature grammar",
    "device": """phone laptop tablet camera printer screen keyboard speaker radio television clock watch headphones router battery computer
        scanner alarm thermostat microphone remote console app website browser""",
    "plant": "oak pine rose tulip daisy grass fern ivy moss willow maple lily lavender cactus sunflower orchid holly birch",
    "toy": "doll kite puzzle ball balloon robot teddy marble skateboard swing slide yo-yo",
    "feeling": "joy anger fear sadness surprise pride worry love hope boredom shame envy relief excitement",
    "material": "wood metal plastic paper cotton wool leather stone brick rubber steel iron clay silk cement",
    "place in nature": "river lake sea mountain hill forest desert island beach valley field cave waterfall ocean stream cliff pond jungle",
}
KINDS = {kind: text.split() for kind, text in _KINDS.items()}

_THINGS = """parcel letter package suitcase backpack umbrella jacket coat bike phone laptop tablet camera book ticket watch ring necklace scarf
    helmet key lamp kettle toaster fridge printer sofa table chair mattress tent rucksack guitar violin kite scooter hat pair of glasses
    pair of shoes set of keys library book train ticket concert ticket bus pass gym pass season ticket membership badge door key locker key
    phone case jumper dress pair of boots toy robot puzzle board game magazine newspaper hearing aid washing machine dishwasher microwave
    coffee machine vacuum cleaner electric bike raincoat sleeping bag swimming bag school bag sports bag lunch box water bottle garden chair
    rug carpet curtain desk bookshelf monitor keyboard headset speaker router smart watch drill ladder lawn mower pram car seat cot medicine
    prescription certificate permit visa passport photo album painting invitation brochure uniform trophy football racket"""
MULTI = """pair of glasses;pair of shoes;set of keys;library book;train ticket;concert ticket;bus pass;gym pass;season ticket;
membership badge;door key;locker key;phone case;pair of boots;toy robot;board game;hearing aid;washing machine;coffee machine;
vacuum cleaner;electric bike;sleeping bag;swimming bag;school bag;sports bag;lunch box;water bottle;garden chair;smart watch;lawn mower;
car seat;photo album;replacement key;new badge;reading lamp;travel mug;wool blanket;birthday present;winter coat;spare part;desk lamp;
theatre ticket;plane ticket;travel pass;garden hose;phone screen;new passport;exam certificate;contact lenses"""
THINGS = sorted(
    {" ".join(m.split()) for m in MULTI.split(";")}
    | (
        set(_THINGS.split())
        - set(
            "pair of set glasses shoes boots board game lunch box bottle bag gym door locker machine aid case album seat car hearing cleaner vacuum electric smart season washing sleeping swimming sports school train concert water lawn garden coffee bus pass library membership travel phone_ desk_".split()
        )
    )
)

_GADGETS = """phone laptop tablet camera printer television radio kettle toaster oven fridge washing_machine dishwasher router heater lift
    doorbell alarm scanner ticket_gate door_sensor remote_control speaker keyboard touch_screen shower boiler headset scooter e-bike app
    website light_switch microphone lock vending_machine thermostat watch intercom barrier projector hand_dryer""".replace("\n", " ")
GADGETS = [g.replace("_", " ") for g in _GADGETS.split()]

_DETAILS = """address;phone number;surname;email address;photo;seat;room;time of my visit;delivery address;booking;appointment;door code;
alarm code;locker code;ringtone;language;nickname;photo;meal choice;table;delivery day;badge name;first name;time zone;screen colour;
reading list;class;gym plan;start date;return date;flight;train seat;date of birth;doctor;shift;wake-up time;wifi name;menu choice"""
DETAILS = [" ".join(d.split()) for d in _DETAILS.split(";")]

_BOOKINGS = """table;room;hotel room;flight;train;seat;taxi;appointment;haircut;lesson;driving lesson;swimming class;yoga class;tennis court;
meeting room;guided tour;ferry;bike;campsite;holiday;order;delivery;visit;trip;dinner;check-up;eye test;piano lesson;subscription;party;
cleaning service;repair;dentist appointment;workshop;course;exam"""
BOOKINGS = [" ".join(d.split()) for d in _BOOKINGS.split(";")]

_CLUBS = """gym library swimming_pool tennis_club book_club music_school newsletter film_club language_course chess_club magazine
    choir running_club gardening_club museum video_service phone_plan meal_box allotment walking_group radio_app youth_club""".replace(
    "\n", " "
)
CLUBS = [c.replace("_", " ") for c in _CLUBS.split()]

_HOW_TO = """boil an egg;fix a flat tyre;change a light bulb;clean the oven;plant tomatoes;knit a scarf;train a puppy;bake bread;set the alarm;
print a photo;download a film;reset the router;renew a library book;join the gym;find the platform;book a table;send a parcel;
open a window;iron a shirt;remove a stain;cook rice;paint a wall;hang a picture;feed a kitten;grow roses;learn Spanish;play chess;
tie a tie;wash a jumper;repair a bike;turn off the heating;unlock the door;update the app;restart the laptop;change my address;
change my photo;change the language;set up the printer;connect the speaker;use the coffee machine;register for the course;
return a book;track my parcel;get to the airport;read a map;store potatoes;make soup;cut an onion;sew on a button;replace the battery;
get a new key;use the scanner;add a friend to the group;turn the volume down;stop the newsletter;leave the club;borrow a book;
make a complaint;see the timetable;find my locker;open the attachment;write a letter;choose a mattress;calm a baby;stop a nosebleed;
set a new door code;make the screen brighter;delete old messages;move to another class;report a broken lamp;get a copy of the keys"""
HOW_TO = [" ".join(h.split()) for h in _HOW_TO.split(";")]

FIRST = """Tom Anna Maria Ben Lucy Omar Priya Jack Emma Noah Olivia Liam Sophie Daniel Grace Peter Laura Adam Hannah Samir Yuki Chen Ivan
    Olga Pablo Carmen Diego Elena Marta Klaus Greta Hugo Nina Oscar Paula Ravi Sara Tariq Uma Victor Wendy Zoe Alice Bruno Clara David Ella
    Felix Gina Henry Iris James Kate Leo Mia Nathan Petra Quinn Rosa Simon Tara Amir Beth Carlos Dora Ethan Fiona George Helen Isaac Julia
    Kevin Linda Mark Nora Owen Polly Rachel Steve Tina Walter Abdul Fatima Kofi Amara Lena Marco Aisha Joe Ruth Max Eva Sam Molly""".split()
LAST = """Smith Jones Brown Taylor Wilson Evans Walker Wright Hill Green Baker Cooper Ward Turner Parker Murphy Kelly Singh Patel Khan Garcia
    Lopez Rossi Meyer Novak Silva Costa Dubois Jensen Larsen Berg Kowalski Ivanov Tanaka Nguyen Kim Osei Mensah Ali Hassan Cohen Levy Moreau
    Fischer Weber Bauer Horvath Popescu Papadopoulos O'Brien MacDonald Fletcher Hughes Price-Jones Marsh Frost Bell Stone Lane Wood""".replace(
    "Price-Jones ", ""
).split()
_CITIES = """London Paris Madrid Rome Berlin Lisbon Athens Warsaw Stockholm Oslo Copenhagen Helsinki Dublin Edinburgh Cardiff Leeds York Bristol
    Manchester Liverpool Glasgow Sheffield Bath Oxford Cambridge Norwich Exeter Brighton Toronto Montreal Mexico_City Lima Santiago Tokyo Kyoto
    Beijing Delhi Mumbai Cairo Nairobi Casablanca Istanbul Vienna Budapest Prague Reykjavik Sydney Melbourne Bangkok Hanoi Zagreb Havana Milan
    Naples Seville Porto Lyon Nice Hamburg Munich Krakow Boston Chicago Denver Seattle Austin New_York San_Diego Cape_Town Lagos Accra Dubai
    Singapore Seoul Manila Jakarta Belfast Cork Galway Swansea Derby Leicester Plymouth Dover Durham Zurich Geneva Brussels Antwerp Rotterdam"""
CITIES = [c.replace("_", " ") for c in _CITIES.split()]
_SPOTS = """the station;the park;the beach;the library;the airport;the museum;the town hall;the market;the gym;the swimming pool;the school;
the office;the bus stop;the harbour;the supermarket;the bakery;the hotel;the car park;the playground;the stadium;the cafe;the back garden;
the corner shop;platform 4;room 12;gate 7;the third floor;the reception desk;the campsite;the clinic;the cinema;the village hall"""
SPOTS = [" ".join(s.split()) for s in _SPOTS.split(";")]

_SYNONYMS = """begin start commence;end finish stop;big large huge;small little tiny;happy glad pleased;sad unhappy upset;angry cross furious mad;
quick fast rapid speedy;slow sluggish;tired weary sleepy exhausted;strange odd weird unusual;nice pleasant lovely;bad awful terrible horrible;
good great excellent fine;help assist support aid;buy get obtain;keep hold retain;throw toss;shut close;choose pick select;look glance;
see notice spot;say state mention;tell inform notify;ask enquire;answer reply respond;shout yell scream;talk speak chat;walk stroll;run jog sprint;
jump leap hop;fall drop tumble;break smash shatter;fix repair mend;build construct;make create produce;change alter modify update;
remove delete erase;add include;find discover locate;lose misplace;missing lost gone;send post mail dispatch;receive get;arrive come;
leave depart;wait hang;need require;want wish desire;like enjoy;love adore;hate detest;think believe reckon;know understand;show display reveal;
hide conceal;allow let permit;refuse reject deny;cancel abort scrap;stop halt;continue proceed;try attempt;fail flop;work function operate;
broken faulty damaged;wrong incorrect mistaken;right correct accurate;easy simple;hard difficult tough;clever smart bright;silly foolish daft;
scared afraid frightened;brave bold fearless;calm peaceful;loud noisy;quiet silent;clean tidy;dirty filthy grubby;wet damp soaked;cold chilly freezing;
hot boiling warm;old ancient aged;new recent fresh;near close nearby;far distant;whole entire complete;part piece bit;many numerous several;
few scarce;often frequently regularly;rarely seldom;always forever;maybe perhaps possibly;now immediately;soon shortly;later afterwards;
also too;but however;because since;child kid;baby infant;man gentleman;woman lady;friend pal mate;doctor physician;job work occupation;
house home;road street;shop store;present gift;picture image photo;trip journey;holiday vacation;idea thought;problem issue trouble;
mistake error;answer solution;danger risk;rule regulation;rubbish waste litter;car automobile;film movie;autumn fall;trousers pants;
biscuit cookie;lift elevator;flat apartment;queue line;parcel package;letter message;thief burglar robber;stolen taken nicked;
urgent pressing;important vital crucial;strong powerful;weak feeble;thin slim slender;fat plump;beautiful pretty gorgeous;ugly unattractive;
funny amusing;serious grave;polite courteous;rude impolite;kind caring;cruel mean nasty;lazy idle;busy occupied;empty vacant;full packed;
safe secure;worried anxious concerned;surprised amazed astonished;confused puzzled baffled;annoyed irritated;sure certain;strict stern;
famous well-known;unknown unfamiliar unrecognised;enter go in;return give back;join connect;open unlock;replace swap;collect fetch gather;
carry bring;reduce lower;increase raise;check inspect examine;blocked stuck jammed;late delayed overdue;early ahead""".replace("\n", "")
SYNONYMS = [g.split() for g in _SYNONYMS.split(";")]

_OPPOSITES = """big small;hot cold;up down;left right;open closed;early late;fast slow;high low;long short;old young;new old;rich poor;happy sad;
hard soft;heavy light;full empty;wet dry;clean dirty;loud quiet;strong weak;thick thin;wide narrow;near far;true false;day night;begin end;
win lose;find lose;push pull;give take;come go;arrive leave;remember forget;love hate;laugh cry;sink float;in out;on off;over under;first last;
always never;more less;before after;inside outside;safe dangerous;easy difficult;polite rude;brave scared;asleep awake;alive dead;deep shallow;
sharp blunt;sweet sour;smooth rough;tight loose;light dark;bright dull;same different;possible impossible;happy unhappy;lucky unlucky;
agree disagree;appear disappear;like dislike;lock unlock;pack unpack;tidy untidy;visible invisible;correct incorrect;north south;east west;
king queen;boy girl;husband wife;uncle aunt;son daughter;brother sister;mother father;buy sell;send receive;question answer;accept refuse;
allow forbid;increase decrease;succeed fail;working broken;lost found;present absent;public private;simple complicated""".replace(
    "rich poor;", ""
).replace("\n", "")
OPPOSITES = [tuple(p.split()) for p in _OPPOSITES.split(";")]

_IRREGULAR = """be was been;become became become;begin began begun;bite bit bitten;blow blew blown;break broke broken;bring brought brought;
build built built;buy bought bought;catch caught caught;choose chose chosen;come came come;cut cut cut;do did done;draw drew drawn;
drink drank drunk;drive drove driven;eat ate eaten;fall fell fallen;feed fed fed;feel felt felt;find found found;fly flew flown;
forget forgot forgotten;get got got;give gave given;go went gone;grow grew grown;have had had;hear heard heard;hide hid hidden;hit hit hit;
hold held held;keep kept kept;know knew known;lead led led;learn learnt learnt;leave left left;lend lent lent;let let let;lose lost lost;
make made made;mean meant meant;meet met met;put put put;read read read;ride rode ridden;ring rang rung;rise rose risen;run ran run;
say said said;see saw seen;sell sold sold;send sent sent;set set set;shake shook shaken;shut shut shut;sing sang sung;sit sat sat;
sleep slept slept;speak spoke spoken;stand stood stood;steal stole stolen;swim swam swum;take took taken;
teach taught taught;tell told told;think thought thought;throw threw thrown;understand understood understood;wake woke woken;
wear wore worn;win won won;write wrote written""".replace("\n", "")
IRREGULAR = {v.split()[0]: tuple(v.split()[1:]) for v in _IRREGULAR.split(";")}
REGULAR = """accept add admire agree allow annoy answer appear apologise argue arrange arrive ask attach attempt bake behave believe belong block boil
    borrow bounce brush call cancel care carry change chase check cheer clean climb close collect comb compare complain complete confirm connect
    consider contact contain continue cook copy cough count cover crash cry dance decide decorate delay deliver describe deserve disagree
    discover dislike download dream dress drop dry email enjoy enter escape examine explain fail fasten finish fix float fold follow freeze
    gather glue greet guess hammer handle happen hate help hope hug hurry improve include inform invite iron join joke jump kick knit knock
    label last laugh lift like listen load lock look love manage mark match mend miss mix move mow need notice offer open order organise pack
    paint park pass pick plan plant play point polish post pour practise prefer prepare press pretend print promise pull push reach receive
    recognise recommend record refuse register reject remember remind remove repair repeat replace reply report request rescue rest return
    rinse rub sail scratch search seem share shop shout show sign ski smell smile sneeze solve sort sound spill stay stop store study
    suggest support surprise talk taste thank touch travel try turn type unlock unpack update use visit wait walk want warn wash watch water
    wave whisper whistle wish wonder work worry yawn""".split()

ADJECTIVES = """red blue green old new small large heavy light clean dirty bright dark warm cold wet dry soft hard quiet loud empty full broken
    wooden plastic paper striped yellow grey brown pretty strange ordinary favourite spare second-hand shiny rusty cosy round square narrow
    wide tall short long fresh sweet bitter salty crisp tiny huge giant modern ancient lovely awful perfect useful useless local foreign
    friendly careful careless gentle clever busy lonely nervous proud thirsty hungry sleepy patient curious cheerful grumpy honest generous
    famous brave shy noisy polite rude lucky calm lazy tidy messy sharp blunt smooth rough purple pink woollen leather golden silver""".split()
ADVERBS = """quickly slowly carefully quietly loudly happily sadly suddenly usually often never always sometimes rarely finally early late again
    together alone outside inside upstairs downstairs everywhere nearby today tomorrow yesterday recently already soon almost really very quite
    too well badly easily hardly gently politely angrily nervously proudly eagerly exactly nearly only still yet even""".split()
MORE = """accident activity advice age air alphabet anniversary answer area argument army atmosphere attention autumn average bath bathroom beauty
    bedroom beginning birthday blanket bottle bottom box boy branch breakfast breath business button candle carpet ceiling centre century chance
    chapter childhood choice city class classroom club coast collection comfort community company competition concert condition conversation
    copy corner country couple courage crowd culture customer damage danger date decision degree delivery department description design detail
    diary difference dinner direction distance document door doubt dream dust edge education effect effort electricity emergency energy
    entrance envelope evening event example exercise exit experience experiment explanation expression fact family fashion favour fence
    festival fire flag flight floor flower friendship fun future game garden gate girl glass goal government ground group guest guide habit
    handle health height history hobby hole homework hour idea illness information interest internet invitation journey key kitchen knowledge
    label language laughter leaf lesson level library licence life light list lock luck luggage lunch machine magazine mail map meal meaning
    medicine meeting member memory menu message method middle midnight mind minute mistake moment morning movement name nation nature
    neighbour news newspaper night noise noon nothing number object offer opinion opportunity opposite option order owner package page pain
    pair party passenger path pattern peace people period permission person photograph piece plan platform player pleasure pocket poem point
    police pool position possibility practice prize problem process product programme project promise purpose quality quarter queen question
    reason receipt recipe record relationship repair request rest result risk roof room route rule safety scene schedule science screen seat
    secret section security service shade shadow shelter sign signal silence situation size skill sky sleep smell smile smoke society solution
    song sort sound space speech speed stairs star start story stranger street strength student subject success suggestion sun supper surface
    system talent task team technology temperature term text thought ticket time title toilet tool tourist town toy traffic training tree trip
    trouble truth type umbrella university use vacation version view village visit visitor voice volunteer wall week weekend weight wheel
    window winter wish word work world year zoo able absent available awake aware comfortable complete correct delicious different double
    due electric enormous equal excellent extra fair familiar final foreign former free general glad healthy helpful immediate important
    impossible independent interesting international main major minor natural necessary normal obvious official online original
    particular personal physical popular possible previous private public quick ready real regular responsible right secure separate
    serious several similar simple single special strong sudden suitable sure temporary terrible tired total traditional typical urgent
    usual valid various whole wonderful wrong anyone anything anywhere everybody everything somebody something somewhere whatever whenever
    although because before after during until while within without against between behind beside beyond above below across along around
    through toward under unless whether though since despite instead therefore however otherwise besides perhaps please sorry thanks hello
    goodbye okay actually basically certainly clearly completely definitely directly especially eventually extremely fortunately generally
    immediately instead mainly mostly normally obviously originally particularly possibly probably properly seriously simply slightly
    somehow specifically totally unfortunately urgently abroad account_less""".replace("account_less", "").split()

PHRASES = {  # fixed everyday exchanges with one right reply
    "Good morning.": "Good morning! How can I help you?",
    "Good evening.": "Good evening! How can I help you?",
    "Good afternoon.": "Good afternoon! How can I help you?",
    "Hello.": "Hello! How can I help you?",
    "Hi there.": "Hello! How can I help you?",
    "How are you?": "I am fine, thank you. How are you?",
    "Thank you.": "You are welcome.",
    "Thanks a lot.": "You are welcome.",
    "Goodbye.": "Goodbye! Have a nice day.",
    "See you tomorrow.": "See you tomorrow!",
    "Good night.": "Good night! Sleep well.",
    "I am sorry.": "No problem at all.",
    "Nice to meet you.": "Nice to meet you too.",
    "Happy birthday!": "Thank you very much!",
    "Have a nice weekend.": "Thank you, you too!",
    "Are you there?": "Yes, I am here.",
    "Can you help me?": "Yes, of course. What do you need?",
    "What is your name?": "I am a small language model.",
    "Who are you?": "I am a small language model.",
    "Are you a person?": "No, I am a small language model.",
}

SIZE_ORDER = "ant bee mouse rat rabbit cat dog sheep pig cow horse elephant whale".split()

_FACTS_YES = """birds have wings;fish live in water;snow is cold;fire is hot;a week has seven days;a year has twelve months;bees make honey;
cows give milk;the sun rises in the morning;ice is frozen water;cats have four legs;trees have leaves;knives are sharp;a spider has eight legs;
lemons are sour;honey is sweet;sheep have wool;rain is wet;the moon shines at night;people sleep at night;dogs can bark;a day has twenty-four hours;
an hour has sixty minutes;books have pages;cars have wheels;babies are young;a triangle has three sides;a square has four sides;hens lay eggs;
bread is made from flour;paper is made from wood;frogs can jump;owls fly at night;winter comes after autumn;glass can break;feathers are light;
stones are hard;rivers flow to the sea;plants need water;a teacher works in a school;a nurse works in a hospital;trains run on rails;
ships sail on the sea;planes can fly;clocks show the time;a kitten is a young cat;a puppy is a young dog;penguins swim well;wood can burn;
ducks can swim;a farmer grows food;a baker makes bread;a pilot flies planes;cheese is made from milk;grass is green;carrots grow in the ground"""
_FACTS_NO = """fish have legs;snow is hot;fire is cold;a week has nine days;a year has ten months;cows lay eggs;the sun rises at night;cats have six legs;
stones can swim;dogs have wings;lemons are sweet;honey is sour;rain is dry;a spider has two legs;cars have wings;babies are old;
a triangle has five sides;a square has three sides;hens give milk;bread is made from stone;paper is made from iron;frogs can sing songs;
summer comes after autumn;glass is soft;feathers are heavy;pillows are hard;rivers flow up the hills;plants need no water;
a teacher works in a bakery;a nurse works in a garage;trains run on water;ships sail on roads;horses can fly;spoons show the time;
a kitten is a young horse;a puppy is a young goat;elephants are tiny;iron can burn like paper;a farmer flies planes;a baker repairs cars;
a pilot grows potatoes;cheese is made from sand;grass is purple;apples grow in the ground;an hour has ten minutes;the moon is made of bread;
people sleep in ovens;birds have hooves;ants are bigger than dogs;tables can talk;a snail is fast;ice is warm;chairs can run;winter is hot"""
FACTS_YES = [" ".join(f.split()) for f in _FACTS_YES.split(";")]
FACTS_NO = [" ".join(f.split()) for f in _FACTS_NO.split(";")]
NUMBER_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
    nineteen twenty""".split()
